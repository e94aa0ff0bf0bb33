"""Linear mode connectivity: loss and error along the straight line between two networks.

The error barrier is sup over α of E(α) minus the mean of E(0) and E(1) (Frankle et al. 2020, section 2, arXiv
1912.05671, who call it instability where the two networks differ in their SGD noise only; less than 2 % is stable).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lottery.data.batches import move, size, steps_per_epoch, training_batches
from lottery.data.parts import Part, Parts, Tensors
from lottery.networks.objectives.metric import Metric
from lottery.networks.objectives.objective import call
from lottery.networks.threads import threads_for, using_threads
from lottery.state.counts import check_count
from lottery.studies.view import TorchView
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, MaskMismatch, nearest
from pruning.jobs import Params
from pruning.mask import Mask

STABLE = 0.02
POINTS = 30
PARTS = ("train", "validation", "test")
_BATCH = 256


@dataclass(frozen=True)
class Curve:
    """Loss and metric along a line, on one part of the data.

    Attributes:
        loss: mean loss at each point [points].
        metric: mean metric at each point [points].
        error: what the barrier is of [points]: 1 − metric for an accuracy, the metric itself where smaller is
            better, its negative otherwise.
    """

    loss: NDArray[np.float64]
    metric: NDArray[np.float64]
    error: NDArray[np.float64]

    @property
    def barrier(self) -> float:
        """The error barrier: a fraction for an accuracy, 0.02 being two percentage points."""
        return barrier(self.error)

    @property
    def loss_barrier(self) -> float:
        """The same of the loss."""
        return barrier(self.loss)


@dataclass(frozen=True)
class StraightLine:
    """The straight line between two networks.

    Attributes:
        alphas: weight of the second network at each point [points]: from 0 to 1.
        curves: by part of the data.
        overlap: Jaccard index of the two masks, or None without masks.
    """

    alphas: NDArray[np.float64]
    curves: Mapping[str, Curve]
    overlap: float | None


def barrier(values: NDArray[np.float64]) -> float:
    """Return the largest value minus the mean of the first and the last: never negative; NaN where a value is NaN.

    >>> barrier(np.array([0.1, 0.5, 0.3]))
    0.3
    """
    return float(np.max(values) - (values[0] + values[-1]) / 2)


def interpolate(a: Params, b: Params, alpha: float) -> dict[str, NDArray[Any]]:
    """Return (1 − α)·a + α·b; integer and boolean arrays are those of `a`.

    The ends are exact, and so is every point where the two agree. Computed in float64, returned in the type of `a`.

    Raises:
        MaskMismatch: other names or shapes.

    >>> interpolate({"w": np.zeros(1), "n": np.array(3)}, {"w": np.ones(1), "n": np.array(5)}, 0.25)
    {'w': array([0.25]), 'n': array(3)}
    """
    check_same_tensors(a, b)
    return {name: _between(a[name], b[name], alpha) for name in a}


def check_same_tensors(a: Params, b: Params) -> None:
    """Raise `MaskMismatch` where two networks do not hold tensors of the same names and shapes.

    >>> check_same_tensors({"w": np.ones(2)}, {"w": np.ones(3)})
    Traceback (most recent call last):
    pruning.errors.MaskMismatch: the two networks are of different architectures: 'w' has shapes (2,) and (3,)
    """
    for one, other in ((a, b), (b, a)):
        for name in one:
            if name not in other:
                close = nearest(name, other, 1)
                hint = f" (the nearest is {close[0]!r})" if close else ""
                raise MaskMismatch(f"the two networks are of different architectures: only one has {name!r}{hint}")
    for name in a:
        if a[name].shape != b[name].shape:
            raise MaskMismatch(
                f"the two networks are of different architectures: {name!r} has shapes {a[name].shape} and "
                f"{b[name].shape}"
            )


def line_between(
    view: TorchView,
    a: Params,
    b: Params,
    *,
    masks: tuple[Mask, Mask] | None = None,
    points: int = POINTS,
    parts: Sequence[str] = ("train", "test"),
    examples: int | None = None,
    statistics_examples: int = 4096,
) -> StraightLine:
    """Evaluate networks on the straight line from `a` to `b`, both ends included.

    Weights that both masks remove are 0 all along (the union of the masks holds). Between the ends, the running
    statistics of a batch norm are those of neither network: they are taken afresh from training examples, as the
    average over batches of 256, with everything else (dropout too) in evaluation mode. A batch norm whose statistics
    are the same bits at both ends was never trained (frozen; evolved) or belongs to one network, and keeps them.

    Args:
        view: networks and data.
        a: parameters and buffers at α = 0.
        b: at α = 1.
        masks: of `a` and `b`; applied to them.
        points: how many values of α, evenly spaced.
        parts: which parts of the data to evaluate: `train`, `validation`, `test`.
        examples: the most examples of each part (the first of a seeded order; a `DataLoader` is read whole).
        statistics_examples: the most training examples that batch norms see.

    Raises:
        BadValue: fewer than two points, no example, an unknown part or one that the data lacks.
        MaskMismatch: networks of different architectures.
    """
    check_count("points", points, 2, "both ends count")
    check_count("statistics_examples", statistics_examples)
    if examples is not None:
        check_count("examples", examples)
    chosen = {name: _limited(part_of(view.parts, name), examples) for name in parts}
    check_same_tensors(a, b)
    if masks is not None:
        a, b = masks[0].apply(a), masks[1].apply(b)
    moved = _moved_statistics(a, b)
    alphas = np.linspace(0.0, 1.0, points)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    with using_threads(_threads(view, a, list(chosen.values()))):
        for alpha in alphas.tolist():
            network = view.network(interpolate(a, b, alpha))
            if 0 < alpha < 1:
                refresh_statistics(network, view, moved, statistics_examples)
            for name, part in chosen.items():
                measured[name].append(view.measure(network, part))
    overlap = mask_overlap(*masks) if masks is not None else None
    return StraightLine(
        alphas, {name: _curve(values, view.objective.metric) for name, values in measured.items()}, overlap
    )


def refresh_statistics(network: nn.Module, view: TorchView, names: Collection[str], examples: int) -> None:
    """Take the running statistics of these batch norms afresh from training examples, in place.

    Args:
        network: in evaluation mode, and left in it.
        view: has the examples.
        names: of the batch norms; of none, nothing is done.
        examples: the most to look at.
    """
    norms = [module for name, module in network.named_modules() if name in names and isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for the plain average over batches
        norm.train()
    train = view.parts.train
    seen = 0
    with users_code("the model on training examples"), torch.no_grad():
        for inputs, targets in training_batches(train, _BATCH, 0, 0, steps_per_epoch(train, _BATCH)):
            call(network, move(inputs, view.device))
            seen += size(targets)
            if seen >= examples:
                break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _limited(part: Part, examples: int | None) -> Part:
    """Return the first examples of a part in a seeded order; a `DataLoader`, or no limit, gives the whole part."""
    if examples is None or not isinstance(part, Tensors) or len(part) <= examples:
        return part
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:examples]
    return part.take(order.to(part.device))


def mask_overlap(a: Mask, b: Mask) -> float:
    """Return |A ∩ B| / |A ∪ B| of two masks; a tensor that only one of them covers is dense in the other.

    >>> mask_overlap(Mask({"a": [1, 0]}), Mask({"a": [1, 0], "b": [1, 1]}))
    1.0
    """
    return _covering(a, b).overlap(_covering(b, a))


def _covering(mask: Mask, other: Mask) -> Mask:
    names = list(dict.fromkeys([*sorted(mask), *sorted(other)]))
    return Mask({name: mask[name] if name in mask else np.ones(other[name].shape, bool) for name in names})


def _threads(view: TorchView, params: Params, parts: Sequence[Part]) -> int:
    """Return how many CPU threads the evaluation of these parts is worth."""
    tensors = [part for part in parts if isinstance(part, Tensors)]
    if len(tensors) < len(parts) or view.device.type != "cpu":
        return torch.get_num_threads()
    network = view.network(params)
    return max((threads_for(network, part.rows(0, _BATCH)[0]) for part in tensors), default=1)


def part_of(parts: Parts, name: str) -> Part:
    """Return a part of the data by name; raises `BadValue` for an unknown one or one that is not there.

    >>> parts = Parts(Tensors(torch.ones(2, 1), torch.zeros(2)), Tensors(torch.ones(1, 1), torch.zeros(1)), None, "few")
    >>> part_of(parts, "train") is parts.train
    True
    >>> part_of(parts, "test")
    Traceback (most recent call last):
    pruning.errors.BadValue: few has no test part
    """
    if name not in PARTS:
        raise BadValue(f"part {name!r}: expected one of {', '.join(PARTS)}")
    found: Part | None = getattr(parts, name)
    if found is None:
        raise BadValue(f"{parts.name} has no {name} part")
    return found


def _moved_statistics(a: Params, b: Params) -> frozenset[str]:
    """Return the modules whose running statistics differ between two networks."""
    ends = (".running_mean", ".running_var")
    names = [name for name in a if f".{name}".endswith(ends) and not np.array_equal(a[name], b[name])]
    return frozenset(name.rpartition(".")[0] for name in names)


def _between(a: NDArray[Any], b: NDArray[Any], alpha: float) -> NDArray[Any]:
    if a.dtype.kind in "biu" or alpha == 0:
        return a
    if alpha == 1:
        return b.astype(a.dtype)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    mixed = (1 - alpha) * a.astype(wide) + alpha * b.astype(wide)
    return np.where(a == b, a, mixed.astype(a.dtype))


def _curve(values: Sequence[tuple[float, float]], metric: Metric) -> Curve:
    loss, found = np.array(values, np.float64).T
    if metric.higher_is_better:
        return Curve(loss, found, 1 - found if metric.is_fraction else -found)
    return Curve(loss, found, found)
