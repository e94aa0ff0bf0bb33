"""Loss and metric of a network over a part of the data, put together from its batches.

    batch ─▶ sums of the loss ─▶ added up ──────────────────────────▶ mean loss
         └─▶ sums of the metric ─▶ added up, or outputs kept ─▶ read ─▶ metric

What comes out does not depend on how the part is cut into batches.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch import nn

from lottery.networks.objectives.class_losses import loss_weight, sums
from lottery.networks.objectives.joining import Joined, examples, join, on_host
from lottery.networks.objectives.metric import BatchFunction, Metric, collects
from lottery.networks.objectives.objective import Objective, own
from lottery.networks.objectives.own_loss import own_loss, own_weight
from pruning.calls.users_code import users_code
from pruning.errors import DataError


class Reading(Protocol):
    """A metric over one part, batch by batch."""

    def add(self, outputs: Any, targets: Any) -> None:
        """See one batch."""
        ...

    def value(self) -> float:
        """Return the metric over all batches so far."""
        ...


class Tally:
    """Loss and metric of one network over one part; hand it batch after batch, then ask for the result."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._reading = reading(objective.metric)
        self._loss = torch.zeros(2, dtype=torch.float64)

    def add(self, outputs: Any, targets: Any) -> None:
        """Add one batch; an exception of the caller's loss or metric becomes a `LotteryError`."""
        self._loss += loss_sums(self._objective.loss, outputs, targets).cpu()
        self._reading.add(outputs, targets)

    def result(self) -> tuple[float, float]:
        """Return the mean loss and the metric; NaN where nothing was seen."""
        return ratio(self._loss), self._reading.value()


def reading(metric: Metric) -> Reading:
    """Return a fresh reading of a metric: it begins empty, and leaves the caller's object alone."""
    if metric.adds_up:
        return _Sum(metric)
    return _Collecting(metric) if collects(metric.function) else _Whole(metric)


def loss_sums(loss: BatchFunction, outputs: Any, targets: Any) -> torch.Tensor:
    """Return a batch's loss times its weight, and its weight: float64 [2]. Works under `torch.func.vmap`.

    >>> loss_sums(torch.nn.functional.mse_loss, torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor([10.,  2.], dtype=torch.float64)
    """
    with users_code("the loss"):
        value = number(loss(outputs, targets), "loss")
    return weighted(loss, value, outputs, targets)


def weighted(loss: BatchFunction, value: torch.Tensor, outputs: Any, targets: Any) -> torch.Tensor:
    """Return the float64 value of a loss on a batch times its weight, and its weight: [2].

    The weight is that of `loss_weight`, or, for the model's own loss, of `own_weight`.
    """
    count = examples(targets)
    if sums(loss):
        return torch.stack([value, torch.full_like(value, count)])
    found = own_weight(outputs, targets) if loss is own_loss else loss_weight(loss, targets, count)
    # A number is written by the device: to copy it from the host would be to wait for the device.
    weight = found.to(value) if isinstance(found, torch.Tensor) else torch.full_like(value, found)
    # A batch in which no label counts has a loss of 0 / 0, and no say.
    return torch.stack([torch.where(weight > 0, value * weight, 0.0), weight])


def metric_sums(metric: Metric, outputs: Any, targets: Any) -> torch.Tensor:
    """Return the two sums of a batch that the metric is the ratio of: float64 [2]. Works under `torch.func.vmap`.

    >>> metric_sums(Metric("largest", lambda outputs, targets: outputs.max()), torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor([6., 2.], dtype=torch.float64)
    """
    with users_code("the metric"):
        if metric.sums is not None:
            return metric.sums(outputs, targets).double()
        value = number(metric.function(outputs, targets), "metric")
    count = torch.full_like(value, examples(targets))
    return torch.stack([value * count, count])


def ratio(pair: torch.Tensor) -> float:
    """Return the first of two numbers by the second, NaN for 0 / 0.

    >>> ratio(torch.tensor([3.0, 4.0])), ratio(torch.zeros(2))
    (0.75, nan)
    """
    top, bottom = pair.tolist()
    return top / bottom if bottom else math.nan


def number(value: Any, what: str) -> torch.Tensor:
    """Return the value of a loss or a metric as a float64 scalar tensor.

    Raises:
        DataError: no number, or several.

    >>> number(np.float32(0.5), "metric").item()
    0.5
    """
    tensor = value if isinstance(value, torch.Tensor) else _tensor(value, what)
    if tensor.numel() != 1:
        raise DataError(f"the {what} must return one number for a batch, not shape {tuple(tensor.shape)}")
    if tensor.is_complex():
        raise DataError(f"the {what} must return one number, not a complex one")
    return tensor.detach().double().reshape(())


def _tensor(value: Any, what: str) -> torch.Tensor:
    array = np.asarray(value)
    if array.dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        shown = "None (does it lack a `return`?)" if value is None else type(value).__name__
        raise DataError(f"the {what} must return one number, not {shown}")
    return torch.as_tensor(array)


class _Sum:
    """A metric that is a ratio of sums over batches."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._total = torch.zeros(2, dtype=torch.float64)

    def add(self, outputs: Any, targets: Any) -> None:
        self._total += metric_sums(self._metric, outputs, targets).cpu()

    def value(self) -> float:
        return ratio(self._total)


class _Whole:
    """A metric that sees all outputs and targets at once."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._batches: list[tuple[Any, Any]] = []

    def add(self, outputs: Any, targets: Any) -> None:
        self._batches.append((on_host(outputs), on_host(targets)))

    def value(self) -> float:
        if not self._batches:
            return math.nan
        counts = [examples(targets) for _, targets in self._batches]
        outputs, targets = (join(values, counts) for values in zip(*self._batches, strict=True))
        for what, joined in (("outputs", outputs), ("targets", targets)):
            if "" in joined.lost:
                raise DataError(
                    f"metric {self._metric.name!r} sees a whole part of the data at once, and the {what} of its "
                    f"batches cannot be joined ({joined.lost['']}): where it is a mean over examples say so with "
                    "Metric(…, additive=True), or give an object with update, compute and reset"
                )
        function = own(self._metric.function, torch.device("cpu"))
        with users_code(f"the metric{_without(outputs, targets)}"):
            return number(function(outputs.value, targets.value), "metric").item()


def _without(outputs: Joined, targets: Joined) -> str:
    """Say what a metric did not get to see."""
    lost = [
        f"{what}{place} ({reason})"
        for what, joined in (("outputs", outputs), ("targets", targets))
        for place, reason in joined.lost.items()
    ]
    if not lost:
        return ""
    return f", which is not additive and sees None for what cannot be joined over batches, {', '.join(lost)},"


class _Collecting:
    """A metric that collects batches by itself; a copy of the caller's object, emptied."""

    def __init__(self, metric: Metric) -> None:
        with users_code("the metric"):
            duplicate = copy.deepcopy(metric.function)
            self._object: Any = duplicate.to("cpu") if isinstance(duplicate, nn.Module) else duplicate
            self._object.reset()

    def add(self, outputs: Any, targets: Any) -> None:
        with users_code("the metric"):
            self._object.update(on_host(outputs), on_host(targets))

    def value(self) -> float:
        with users_code("the metric"):
            return number(self._object.compute(), "metric").item()
