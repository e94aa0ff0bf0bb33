"""Metrics: they decide what "as good as dense" means; and the forms in which callers give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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


def collects(metric: Any) -> bool:
    """Say whether a metric is an object that collects batches by itself, as those of torchmetrics do."""
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))
