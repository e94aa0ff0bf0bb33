"""Schedules: how many weights every level keeps.

All counts follow from exact rational arithmetic on the decimal rates that people write, so that they are the same on
every machine. Counts are rounded half up from the closed form n·(1 − r)^level; rounding does not accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pruning.errors import BadValue

Target = int | dict[str, int]
# Each level is a training: a ladder of more is a mistake, which would be computed for hours before it is seen.
MAX_LEVELS = 1_000


def check_fraction(name: str, value: float, *, zero: bool) -> None:
    """Raise `BadValue` unless 0 < value < 1 (or 0 <= value < 1 where `zero` is allowed).

    >>> check_fraction("sparsity", 90, zero=True)
    Traceback (most recent call last):
    pruning.errors.BadValue: sparsity 90 is not a fraction: write 0.9 for 90 %
    """
    if 0 < value < 1 or (zero and value == 0):
        return
    if 1 < value < 100 and name in ("sparsity", "density"):
        raise BadValue(f"{name} {value:g} is not a fraction: write {value / 100:g} for {value:g} %")
    low = "0 or more" if zero else "more than 0"
    hint = f" (0.2 removes 20 % of the survivors, not {value:g})" if name == "prune_rate" else ""
    raise BadValue(f"{name} must be {low} and less than 1, not {value:g}{hint}")


def geometric(
    sizes: Mapping[str, int], rates: Mapping[str, float], levels: int, scope: str, guard: int = 1
) -> list[Target]:
    """Return how many weights levels 0 to `levels` keep when every level removes a fixed fraction of the survivors.

    Args:
        sizes: prunable weights in each tensor.
        rates: prune rate of each tensor; for scope `global` all the same.
        levels: how many times to prune.
        scope: `global` (one total for each level) or `layer` (one count for each tensor).
        guard: the fewest weights that every tensor keeps.

    Raises:
        BadValue: a rate out of range, rates that differ in scope `global`, or a level that empties a tensor.

    Frankle & Carbin (2019), LeNet-300-100: 20 % a level, 10 % of the output layer.

    >>> sizes = {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    >>> ladder = geometric(sizes, {"fc1": 0.2, "fc2": 0.2, "fc3": 0.1}, 15, "layer")
    >>> [round(100 * sum(ladder[level].values()) / 266_200, 2) for level in (7, 9, 15)]
    [21.07, 13.52, 3.58]
    """
    if not 0 <= levels <= MAX_LEVELS:
        raise BadValue(f"levels must be 0 or more and at most {MAX_LEVELS:,}, not {levels}")
    return _checked((_after(level, sizes, rates, scope) for level in range(levels + 1)), sizes, guard)


def until_sparsity(
    sizes: Mapping[str, int],
    rates: Mapping[str, float],
    sparsity: float,
    scope: str,
    total: int | None = None,
    guard: int = 1,
) -> list[Target]:
    """Return a geometric ladder whose last level has exactly this sparsity.

    The last step is shortened to land on it. `sizes` are the weights at level 0; `total`, by default their sum, is
    what the sparsity is a fraction of (a network that was already pruned has more prunable weights than survivors).

    >>> until_sparsity({"w": 1000}, {"w": 0.2}, 0.5, "global")
    [1000, 800, 640, 512, 500]
    """
    check_fraction("sparsity", sparsity, zero=True)
    goal = round_half_up((sum(sizes.values()) if total is None else total) * (1 - rational(sparsity)))
    if goal > sum(sizes.values()):
        raise BadValue(f"sparsity {sparsity:g} is less than that of the network as given")
    ladder: list[Target] = []
    while not ladder or _kept(ladder[-1]) > goal:
        if len(ladder) > MAX_LEVELS:
            raise BadValue(f"sparsity {sparsity:g} takes more than {MAX_LEVELS:,} levels at these prune rates")
        ladder.append(_after(len(ladder), sizes, rates, scope))
        if len(ladder) > 1 and _kept(ladder[-1]) == _kept(ladder[-2]):
            raise BadValue(
                f"sparsity {sparsity:g} cannot be reached at these prune rates: they no longer remove a weight"
            )
    if _kept(ladder[-1]) < goal:
        low, high = ladder[-2], ladder[-1]
        ladder[-1] = goal if isinstance(low, int) or isinstance(high, int) else _between(low, high, goal)
    return _checked(ladder, sizes, guard)


def explicit(
    sizes: Mapping[str, int],
    densities: Sequence[float],
    scope: str,
    totals: Mapping[str, int] | None = None,
    guard: int = 1,
) -> list[Target]:
    """Return a ladder from an explicit list of densities, level 0 included.

    `sizes` are the weights at level 0; `totals`, by default the same, are what densities are fractions of.

    >>> explicit({"w": 1000}, [0.5, 0.1], "global")
    [1000, 500, 100]
    """
    for before, after in zip((1.0, *densities), densities, strict=False):
        check_fraction("density", 1 - after if after == 1 else after, zero=True)
        if after > before:
            raise BadValue(f"densities must fall from level to level: {before:g} is followed by {after:g}")
    totals = totals or sizes
    ladder: list[Target] = [sum(sizes.values()) if scope == "global" else dict(sizes)]
    for density in densities:
        kept = {name: round_half_up(size * rational(density)) for name, size in totals.items()}
        ladder.append(round_half_up(sum(totals.values()) * rational(density)) if scope == "global" else kept)
        if _kept(ladder[-1]) > _kept(ladder[-2]):
            raise BadValue(f"density {density:g} is more than that of the network as given")
    return _checked(ladder, sizes, guard)


def _after(level: int, sizes: Mapping[str, int], rates: Mapping[str, float], scope: str) -> Target:
    """Return how many weights stay after `level` levels of fixed rates."""
    keep = {name: 1 - rational(_checked_rate(name, rates[name])) for name in sizes}
    if scope == "global":
        if len(set(keep.values())) > 1:
            raise BadValue("scope 'global' prunes all tensors at one rate; layer rates need scope 'layer'")
        return round_half_up(sum(sizes.values()) * next(iter(keep.values())) ** level)
    return {name: round_half_up(size * keep[name] ** level) for name, size in sizes.items()}


def _checked_rate(name: str, rate: float) -> float:
    if not 0 <= rate < 1:
        check_fraction("prune_rate", rate, zero=True)
    return rate


def rational(value: float) -> Fraction:
    """Return the decimal that a person wrote, exactly.

    >>> rational(0.2)
    Fraction(1, 5)
    """
    # str() gives the shortest decimal that means this float: 0.2 is 1/5 and not 0.200000000000000011102230246.
    return Fraction(str(value))


def round_half_up(value: Fraction) -> int:
    """Return the nearest whole number; of two that are equally near, the larger.

    >>> [round_half_up(Fraction(half, 2)) for half in (1, 2, 3, 5)]
    [1, 1, 2, 3]
    """
    return math.floor(value + Fraction(1, 2))


def _kept(target: Target) -> int:
    return target if isinstance(target, int) else sum(target.values())


def _checked(ladder: Iterable[Target], sizes: Mapping[str, int], guard: int) -> list[Target]:
    """Return the ladder, or raise `BadValue` for its first level that leaves a tensor less than the guard asks for."""
    checked: list[Target] = []
    fewest = "less than one weight" if guard <= 1 else f"less than the {guard} weights of the guard"
    for level, target in enumerate(ladder):
        advice = f"use at most {max(0, level - 1)} levels or a smaller prune rate"
        if isinstance(target, int):
            least = max(1, sum(min(guard, size) for size in sizes.values()))
            if target < least:
                raise BadValue(
                    f"level {level} would keep {target} weights for {len(sizes)} tensors, {fewest} in each; {advice}"
                )
        else:
            for name, kept in target.items():
                if kept < min(guard, sizes[name]):
                    raise BadValue(f"level {level} would leave {fewest} in {name!r}; {advice} for it")
        checked.append(target)
    return checked


def _between(low: dict[str, int], high: dict[str, int], goal: int) -> dict[str, int]:
    """Return counts between two levels that add up to `goal`: largest remainders of a common fraction."""
    share = Fraction(goal - _kept(high), _kept(low) - _kept(high))
    exact = {name: high[name] + share * (low[name] - high[name]) for name in low}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: goal - sum(counts.values())]:
        counts[name] += 1
    return counts
