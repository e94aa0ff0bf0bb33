"""Loss and metric: defaults by the labels' type, and the caller's own callables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lottery.identity import identify
from pruning.calling import spread
from pruning.copying import copy_module
from pruning.errors import DataError

BatchFunction = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Measure:
    """How a metric is read: its name, its direction, and whether 0.005 means half a percentage point."""

    name: str
    higher_is_better: bool = True
    is_fraction: bool = False


@dataclass(frozen=True)
class Metric:
    """What "as good as dense" is measured with.

    Attributes:
        name: for tables.
        function: `function(outputs, targets)` returns the mean over a batch: a scalar tensor or a number.
        higher_is_better: False for errors.
        is_fraction: True where 0.005 means half a percentage point.
    """

    name: str
    function: BatchFunction
    higher_is_better: bool = True
    is_fraction: bool = False

    @property
    def measure(self) -> Measure:
        """How it is read."""
        return Measure(self.name, self.higher_is_better, self.is_fraction)


@dataclass(frozen=True)
class Objective:
    """What training minimizes and what a search compares.

    Attributes:
        loss: `loss(outputs, targets)` returns a scalar tensor.
        metric: the measure of a ticket.
        name: tells objectives apart in a run's configuration.
    """

    loss: BatchFunction
    metric: Metric
    name: str

    def private(self) -> Objective:
        """Return an objective of its own for one training: a loss or a metric that is a module may keep state."""
        return replace(self, loss=own(self.loss), metric=replace(self.metric, function=own(self.metric.function)))

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Put a loss and a metric that are modules in evaluation mode: what is measured must not be learned from."""
        given = [function for function in (self.loss, self.metric.function) if isinstance(function, nn.Module)]
        modes = [(module, module.training) for function in given for module in function.modules()]
        for function in given:
            function.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def own(function: BatchFunction, device: torch.device | None = None) -> BatchFunction:
    """Return a copy of a loss or metric that is a module, on a device; anything else as it is."""
    return copy_module(function).to(device) if isinstance(function, nn.Module) else function


def objective_for(
    targets: Any, loss: BatchFunction | None = None, metric: Metric | BatchFunction | None = None
) -> Objective:
    """Return the objective for labels of this type.

    Args:
        targets: a batch of labels. Integers: cross-entropy and accuracy. Booleans: binary cross-entropy on logits
            and accuracy. Floats: mean squared error, both as loss and as metric.
        loss: the caller's own `loss(outputs, targets)`.
        metric: the caller's own `metric(outputs, targets)` (higher is better), or a `Metric`.

    Raises:
        DataError: labels of another type, without a loss and a metric of the caller's own.

    >>> objective_for(torch.tensor([1, 0])).metric.name
    'accuracy'
    """
    if metric is not None and not isinstance(metric, Metric):
        metric = Metric(getattr(metric, "__name__", "metric"), metric)
    if loss is None or metric is None:
        default = _default(targets)
        loss, metric = loss or default.loss, metric or default.metric
    kind = f"{metric.name} {'up' if metric.higher_is_better else 'down'}{' fraction' if metric.is_fraction else ''}"
    return Objective(loss, metric, f"{identify(loss)} / {identify(metric.function)} {kind}")


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's outputs for a batch of inputs, handed over as `pruning.calling.spread` says."""
    args, kwargs = spread(model, inputs)
    return model(*args, **kwargs)


def _default(targets: Any) -> Objective:
    if not isinstance(targets, torch.Tensor):
        raise DataError("labels that are no tensor need both a loss and a metric of your own")
    if targets.dtype == torch.bool:
        return Objective(binary_loss, Metric("accuracy", binary_accuracy, is_fraction=True), "binary")
    if targets.is_floating_point():
        return Objective(squared_error, Metric("mse", squared_error, higher_is_better=False), "regression")
    return Objective(F.cross_entropy, Metric("accuracy", accuracy, is_fraction=True), "classification")


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the fraction of labels that the largest output hits; classes lie along axis 1.

    Raises:
        DataError: outputs and labels whose shapes do not belong together.
    """
    hits = outputs.argmax(1) if outputs.dim() > 1 else outputs
    if hits.shape != targets.shape:
        raise DataError(f"accuracy: outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(targets.shape)}")
    return (hits == targets).float().mean()


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error; [N, 1] outputs fit [N] targets.

    >>> squared_error(torch.ones(3, 1), torch.zeros(3)).item()
    1.0
    """
    return F.mse_loss(_like(outputs, targets), targets)


def binary_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits with boolean labels."""
    return F.binary_cross_entropy_with_logits(_like(outputs, targets), targets.to(outputs.dtype))


def binary_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the fraction of boolean labels that the sign of a logit hits."""
    return ((_like(outputs, targets) > 0) == targets).float().mean()


def _like(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if outputs.numel() != targets.numel():
        raise DataError(f"the model returns shape {tuple(outputs.shape)} for labels of shape {tuple(targets.shape)}")
    return outputs.reshape(targets.shape)
