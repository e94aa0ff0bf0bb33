"""Metrics: what "as good as dense" is measured with, and how callers give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lottery.class_losses import IGNORED, class_loss
from pruning.errors import BadValue

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

    A metric is read over a whole part of the data: `function` is called once, with the outputs and the targets of all
    its batches joined, on the CPU. What can be put together from batches may say how, and needs no room for the whole.

    Attributes:
        name: for tables.
        function: `function(outputs, targets)` returns one number; or an object that collects batches by itself, with
            `update(outputs, targets)`, `compute()` and `reset()` (of torchmetrics, for example).
        higher_is_better: False for errors.
        is_fraction: True where 0.005 means half a percentage point.
        additive: `function` is a mean over examples: it is called batch by batch, where the data is, and averaged by
            the batches' sizes.
        sums: `sums(outputs, targets)` returns a float64 tensor of two for a batch; over all batches added up, the
            metric is the first by the second (hits by labels that count).
    """

    name: str
    function: Any
    higher_is_better: bool = True
    is_fraction: bool = False
    additive: bool = False
    sums: BatchFunction | None = None

    @property
    def measure(self) -> Measure:
        """How it is read."""
        return Measure(self.name, self.higher_is_better, self.is_fraction)

    @property
    def adds_up(self) -> bool:
        """Whether it is put together from batches, rather than read from the whole part."""
        return self.additive or self.sums is not None


class Collects(Protocol):
    """A metric that collects batches by itself, as those of torchmetrics do."""

    def update(self, outputs: Any, targets: Any, /) -> Any:
        """See one batch."""
        ...

    def compute(self) -> Any:
        """Return the metric over all batches so far."""
        ...

    def reset(self) -> Any:
        """Forget them."""
        ...


GivenMetric = Metric | BatchFunction | Collects | str
"""A metric as callers give it: ready, a function or an object, or the name of one of scikit-learn's scorers."""


def as_metric(metric: GivenMetric, loss: BatchFunction) -> Metric:
    """Return a metric as callers give it as a `Metric`.

    Args:
        metric: what was given.
        loss: says which label does not count, for a scorer by name.

    Raises:
        BadValue: none of the things that a metric can be.
        UnknownName: a name that scikit-learn does not know.
    """
    if isinstance(metric, Metric):
        if not collects(metric.function) and not callable(metric.function):
            raise BadValue(f"metric {metric.name!r}: its function must be callable, not {metric.function!r}")
        return metric
    if isinstance(metric, str):
        from lottery.scorers import scorer_metric

        how = class_loss(loss)
        return scorer_metric(metric, IGNORED if how is None else how.ignored)
    if isinstance(metric, type):
        raise BadValue(f"metric {metric.__name__} is a class: give an instance of it, {metric.__name__}(…)")
    if collects(metric):
        # torchmetrics says so where it knows; a name of its own is better than none.
        return Metric(type(metric).__name__, metric, getattr(metric, "higher_is_better", None) is not False)
    if not callable(metric):
        raise BadValue(
            "metric must be a function of (outputs, targets), an object with update, compute and reset, a Metric, or "
            f"the name of one of scikit-learn's scorers, not {metric!r}"
        )
    return Metric(getattr(metric, "__name__", "metric"), metric)


def collects(metric: Any) -> bool:
    """Say whether a metric is an object that collects batches by itself, as those of torchmetrics do."""
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))
