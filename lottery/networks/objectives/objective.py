"""Loss and metric: defaults by the labels' type, and the caller's own callables."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lottery.data.batch import copied
from lottery.networks.objectives.class_losses import IGNORED, class_loss
from lottery.networks.objectives.given_metric import as_metric
from lottery.networks.objectives.metric import BatchFunction, GivenMetric, Metric
from lottery.networks.objectives.own_loss import own_loss, own_loss_sums
from lottery.state.identity import identify
from pruning.calls.calling import call_once
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, DataError, unknown


@dataclass(frozen=True)
class Objective:
    """The loss, which training minimizes, and the metric, by which a search compares.

    Attributes:
        loss: `loss(outputs, targets)` returns a scalar tensor.
        metric: the measure of a ticket.
        name: tells objectives apart in a run's configuration.
    """

    loss: BatchFunction
    metric: Metric
    name: str

    def private(self) -> Objective:
        """Return a copy for one training: a loss or a metric may keep state."""
        return replace(self, loss=own(self.loss), metric=replace(self.metric, function=own(self.metric.function)))

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Put a loss and a metric that are modules in evaluation mode: measuring must not train them."""
        given = [function for function in (self.loss, self.metric.function) if isinstance(function, nn.Module)]
        modes = [(module, module.training) for function in given for module in function.modules()]
        for function in given:
            function.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def own(function: Any, device: torch.device | None = None) -> Any:
    """Return a copy of a loss or metric that may keep state: a module, on a device, or an object of another class.

    A function is returned as it is. Of an object, counts and values are its copy's own; a list in which it records
    what it saw stays the caller's.

    Raises:
        BadValue: an object that cannot be copied.
    """
    if isinstance(function, nn.Module):
        return copy_module(function).to(device)
    if not isinstance(type(function).__call__, types.FunctionType):  # a function, a method, a partial, a class
        return function
    with users_code(f"copying the loss or metric {type(function).__name__!r}", BadValue):
        return copy.copy(function)


GivenLoss = BatchFunction | str
"""A loss as callers give it: a function of (outputs, targets), or `"own"` for the one in the model's outputs."""

OWN = "own"
LOSS = "loss"


def objective_for(targets: Any, loss: GivenLoss | None = None, metric: GivenMetric | None = None) -> Objective:
    """Return the objective for labels of this type.

    Args:
        targets: a batch of labels. Integers: cross-entropy and accuracy. Booleans: binary cross-entropy on logits
            and accuracy. Floats: mean squared error, both as loss and as metric. Anything else (a whole batch): the
            loss in the model's outputs (`lottery.networks.objectives.own_loss`), both as loss and as metric.
        loss: the caller's own `loss(outputs, targets)`, or "own" for the model's. The default accuracy leaves out the
            label that it ignores (`ignore_index`), and reads class probabilities where it is a cross-entropy. Of labels
            that are no tensor the loss is the metric too, as a mean over examples.
        metric: the caller's own `metric(outputs, targets)` (higher is better), an object that collects batches, a
            `Metric`, one of scikit-learn's scorer names (`f1`, `balanced_accuracy`, …), or "loss" for the loss itself.

    Raises:
        BadValue: a metric that is none of these.
        UnknownName: a name that scikit-learn does not know, or a loss by another name than "own".

    >>> objective_for(torch.tensor([1, 0])).metric.name
    'accuracy'
    """
    loss = _loss(loss, targets)
    if metric == LOSS:
        given = _loss_metric(loss)
    else:
        given = _default_metric(targets, loss) if metric is None else as_metric(metric, loss)
    kind = f"{given.name} {'up' if given.higher_is_better else 'down'}{' fraction' if given.is_fraction else ''}"
    kind += "" if given.sums is not None else " additive" if given.additive else " whole"
    return Objective(loss, given, f"{identify(loss)} / {identify(given.function)} {kind}")


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's outputs for a batch of inputs, handed over as `pruning.calls.calling` says.

    They are handed over as copies: a model may change them in place (`x /= 255`, a first layer that is `inplace`), and
    what is looked at again must be what it was.
    """
    return call_once(model, copied(inputs))


def _loss(given: GivenLoss | None, targets: Any) -> BatchFunction:
    """Return the loss that was given, the model's own, or the default for labels of this type."""
    if isinstance(given, str):
        if given != OWN:
            raise unknown("loss", given, [OWN])
        return own_loss
    if given is not None:
        return given
    if not isinstance(targets, torch.Tensor):
        return own_loss
    if targets.dtype == torch.bool:
        return binary_loss
    return squared_error if targets.is_floating_point() else F.cross_entropy


def _loss_metric(loss: BatchFunction) -> Metric:
    if loss is own_loss:
        return Metric(LOSS, own_loss, higher_is_better=False, sums=own_loss_sums)
    return Metric(LOSS, loss, higher_is_better=False, additive=True)


def _default_metric(targets: Any, loss: BatchFunction) -> Metric:
    if loss is own_loss or not isinstance(targets, torch.Tensor):
        return _loss_metric(loss)
    if targets.dtype == torch.bool:
        return Metric("accuracy", binary_accuracy, is_fraction=True, sums=binary_hits)
    how = class_loss(loss)
    if targets.is_floating_point() and how is None:
        return Metric("mse", squared_error, higher_is_better=False, sums=squared_errors)
    if how is None or how.ignored == IGNORED:
        return Metric("accuracy", accuracy, is_fraction=True, sums=hits)
    function, sums = (functools.partial(each, ignored=how.ignored) for each in (accuracy, hits))
    return Metric("accuracy", function, is_fraction=True, sums=sums)


def accuracy(outputs: torch.Tensor, targets: torch.Tensor, ignored: int = IGNORED) -> torch.Tensor:
    """Return the fraction of labels that the largest output hits, in float64; classes lie along axis 1.

    Args:
        outputs: [N, C, …] scores of classes, or [N] classes.
        targets: [N, …] labels, or [N, C, …] probabilities of classes: the likeliest is the label.
        ignored: the label that does not count.

    Raises:
        DataError: outputs and labels whose shapes do not belong together.

    >>> accuracy(torch.eye(3), torch.tensor([0, 0, -100])).item()
    0.5
    """
    right, count = hits(outputs, targets, ignored)
    return right / count


def hits(outputs: torch.Tensor, targets: torch.Tensor, ignored: int = IGNORED) -> torch.Tensor:
    """Return how many labels the largest output hits, and how many count: float64 [2] (see `accuracy`)."""
    require_tensors("accuracy", outputs, targets)
    if targets.is_floating_point() and targets.shape == outputs.shape and targets.dim() > 1:
        targets = targets.argmax(1)
    chosen = outputs.argmax(1) if outputs.dim() > 1 else outputs
    if chosen.shape != targets.shape:
        raise DataError(f"accuracy: outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(targets.shape)}")
    counts = targets != ignored
    return torch.stack([((chosen == targets) & counts).sum(), counts.sum()]).double()


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
    """Return the fraction of boolean labels that the sign of a logit hits, in float64."""
    right, count = binary_hits(outputs, targets)
    return right / count


def binary_hits(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return how many boolean labels the sign of a logit hits, and how many there are: float64 [2].

    >>> binary_hits(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, True, True]))
    tensor([2., 3.], dtype=torch.float64)
    """
    right = (_like(outputs, targets) > 0) == targets
    return torch.stack([right.sum().double(), _count(targets)])


def squared_errors(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of squared errors, and how many there are: float64 [2].

    >>> squared_errors(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
    tensor([5., 2.], dtype=torch.float64)
    """
    difference = _like(outputs, targets).double() - targets.double()
    return torch.stack([difference.square().sum(), _count(targets)])


def _count(targets: torch.Tensor) -> torch.Tensor:
    return torch.full((), targets.numel(), dtype=torch.float64, device=targets.device)


def _like(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    require_tensors("the loss and the metric by default", outputs, targets)
    if outputs.numel() != targets.numel():
        raise DataError(f"the model returns shape {tuple(outputs.shape)} for labels of shape {tuple(targets.shape)}")
    return outputs.reshape(targets.shape)


def require_tensors(what: str, *values: Any) -> None:
    """Raise `DataError` for outputs or labels that are no tensor; the message says what to give.

    >>> require_tensors("accuracy", torch.ones(2), [1, 0])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.DataError: accuracy: expected a tensor of outputs and one of labels, not list: ...
    """
    for value in values:
        if not isinstance(value, torch.Tensor):
            raise DataError(
                f"{what}: expected a tensor of outputs and one of labels, not {type(value).__name__}: give `loss` and "
                "`metric` as functions of (outputs, targets), or a `forward` of (model, batch) that returns a tensor"
            )
