"""Smart ratios: densities that fall with depth."""

from __future__ import annotations

from fractions import Fraction

from pruning.ladder import Target, round_half_up
from pruning.scopes import PrunableTensors, Schedule, level_totals, scope
from pruning.scopes.filling import fill

_LINEAR = Fraction(3, 10)


@scope("smart-ratio", source="Su et al. 2020, smart ratios (arXiv 2009.11094)", follows=True)
def smart_ratio(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """Densities ∝ (L − l + 1)² + (L − l + 1) in layer l of L; the last linear layer keeps 30 %.

    Layers count in the order in which they run. Linear means a tensor of two axes. Where 30 % are more or less than
    the other tensors can leave to it, it keeps what they can. A density ends at 1, and what is over goes to the other
    tensors in proportion.

    >>> shapes = {"1": (10, 10), "2": (10, 10), "last": (10, 10)}
    >>> smart_ratio(Schedule(densities=(0.35,)), PrunableTensors(shapes, dict.fromkeys(shapes, 100)))[1]
    {'1': 50, '2': 25, 'last': 30}
    """
    totals, least = tensors.totals, {name: min(schedule.guard, size) for name, size in tensors.sizes.items()}
    depth = {name: len(totals) - index for index, name in enumerate(tensors.by_depth)}
    shares = {name: max(1, total) * (depth[name] ** 2 + depth[name]) for name, total in totals.items()}
    linear = next((name for name in reversed(tensors.by_depth) if len(tensors.shapes[name]) == 2), None)
    levels = [dict(tensors.sizes)]
    for total in level_totals(schedule, tensors)[1:]:
        low, high = dict(least), dict(levels[-1])
        if linear is not None:
            fixed = round_half_up(_LINEAR * totals[linear])
            fixed = max(fixed, low[linear], total - sum(high.values()) + high[linear])
            fixed = min(fixed, high[linear], total - sum(low.values()) + low[linear])
            low[linear] = high[linear] = fixed
        levels.append(fill(total, shares, low, high))
    return list[Target](levels)
