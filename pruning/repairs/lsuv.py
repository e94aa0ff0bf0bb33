"""Layer-sequential unit variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pruning.errors import BadValue, shown
from pruning.repairs import Mended, repair
from pruning.starts.left_alone import LeftAlone
from pruning.starts.weight import Array, Weight


@dataclass(frozen=True)
class Scaled:
    """How far a layer's output was from unit variance.

    Attributes:
        std_before: standard deviation of what the layer gave out; layers before it are mended already.
        std_after: the same after the repair.
        factor: by which the layer's weights were multiplied.
        runs: of the network, that measured this layer.
    """

    std_before: float
    std_after: float
    factor: float
    runs: int


@repair("lsuv", source="Mishkin and Matas 2016, algorithm 1 (arXiv 1511.06422)", needs_outputs=True)
def lsuv(
    weight: Weight,
    values: Array,
    output: Callable[[Array], float],
    *,
    std: float = 1.0,
    tolerance: float = 0.01,
    steps: int = 10,
) -> Mended:
    """Each layer in forward order scaled until its output has variance 1 on a few batches.

    Args:
        weight: the layer's weight.
        values: what it starts from; only their size changes, so that their directions are the initializer's.
        output: runs the network, and returns the standard deviation of what the layer gives out.
        std: the standard deviation that it shall have.
        tolerance: how far from `std` it may stay, as a share of it.
        steps: how often the layer is scaled at most; a bias or a recurrence makes more than one necessary.

    Raises:
        BadValue: a setting outside its range; an output that is not finite.
        LeftAlone: nothing reaches the layer's output.
    """
    if not 0 < std < math.inf:
        raise BadValue(f"std of repair 'lsuv' is above 0, not {shown(std)}")
    if not 0 < tolerance < 1:
        raise BadValue(f"tolerance of repair 'lsuv' is a share, between 0 and 1, not {shown(tolerance)}")
    if steps < 1:
        raise BadValue(f"steps of repair 'lsuv' are 1 or more, not {shown(steps)}")
    first = now = _finite(output(values), weight)
    if not values.any() or now == 0:
        raise LeftAlone(f"the layer of {weight} gives out the same for every example: no factor gives it a variance")
    factor, runs = 1.0, 1
    while abs(now / std - 1) > tolerance and runs <= steps:
        factor *= std / now
        now = _finite(output(values * factor), weight)
        runs += 1
        if now == 0:
            raise LeftAlone(f"the layer of {weight} gives out the same for every example once it is scaled")
    return Mended(values * factor, Scaled(first, now, factor, runs))


def _finite(measured: float, weight: Weight) -> float:
    if not math.isfinite(measured):
        raise BadValue(f"what the layer of {weight} gives out is not finite: draw smaller weights before this repair")
    return measured
