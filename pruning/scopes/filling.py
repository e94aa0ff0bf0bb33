"""Water-filling: a total divided among tensors in proportion to their shares, within bounds, in exact arithmetic."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction

from pruning.errors import BadValue
from pruning.ladder import Target
from pruning.scopes import PrunableTensors, Schedule, level_totals


def fill(total: int, shares: Mapping[str, int], least: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """Divide `total`: everyone gets the same multiple of their share, as far as the bounds allow.

    The multiple is an exact fraction; what is left after rounding down goes to the largest remainders, of equal ones
    to the earlier name. What a bound cuts off is thereby divided among the others in proportion.

    Args:
        total: the number to divide; the counts add up to it exactly.
        shares: positive weights of the tensors.
        least: the fewest that each gets.
        most: the most that each gets.

    Raises:
        BadValue: bounds that `total` cannot be divided within.

    >>> names = ("a", "b", "c")
    >>> fill(11, {"a": 1, "b": 1, "c": 8}, dict.fromkeys(names, 0), {"a": 9, "b": 9, "c": 6})
    {'a': 3, 'b': 2, 'c': 6}
    """
    low, high = sum(least.values()), sum(most.values())
    if not low <= total <= high:
        raise BadValue(f"{total} weights cannot be divided among {len(shares)} tensors that hold {low} to {high}")

    def held(multiple: Fraction) -> dict[str, Fraction]:
        return {name: Fraction(min(max(multiple * share, least[name]), most[name])) for name, share in shares.items()}

    # The sum is piecewise linear in the multiple and bends where a tensor leaves one of its bounds.
    bends = sorted({Fraction(bound[name], share) for name, share in shares.items() for bound in (least, most)})
    at = bends[bisect_right(bends, total, key=lambda multiple: sum(held(multiple).values())) - 1]
    missing = total - sum(held(at).values())
    if missing:
        rising = (name for name, share in shares.items() if least[name] <= at * share < most[name])
        at += Fraction(missing) / sum(shares[name] for name in rising)
    exact = held(at)
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def filled_levels(schedule: Schedule, tensors: PrunableTensors, shares: Mapping[str, int]) -> list[Target]:
    """Return the levels of one pool, each divided among the tensors in proportion to `shares`.

    No tensor gets more than it had at the level before, so that masks can be nested, and none less than the guard.

    Args:
        schedule: how far the levels prune.
        tensors: of the network.
        shares: the counts (not densities) are proportional to these, where the tensors' sizes allow it.

    Raises:
        BadValue: a level that empties a tensor, or that nothing reaches.

    >>> tensors = PrunableTensors({"a": (10,), "b": (10,)}, {"a": 10, "b": 10})
    >>> filled_levels(Schedule(densities=(0.5,)), tensors, {"a": 1, "b": 4})
    [{'a': 10, 'b': 10}, {'a': 2, 'b': 8}]
    """
    least = {name: min(schedule.guard, size) for name, size in tensors.sizes.items()}
    levels = [dict(tensors.sizes)]
    for total in level_totals(schedule, tensors)[1:]:
        levels.append(fill(total, shares, least, levels[-1]))
    return list[Target](levels)
