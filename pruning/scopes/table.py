"""Densities written down by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from pruning.errors import BadValue
from pruning.ladder import Target, check_fraction, rational, round_half_up
from pruning.masks.names import values_by_name
from pruning.scopes import PrunableTensors, Schedule, scope


@scope("table", source="Liu et al. 2019, predefined architectures (arXiv 1810.05270)", reads=("layer_densities",))
def table(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """The densities of `layer_densities` at the last level; every tensor not named stays dense.

    From level 0 to the last, each tensor's counts fall at a rate of its own. `prune_rate` is not used.
    """
    if not schedule.layer_densities:
        raise BadValue("scope 'table' needs layer_densities: by tensor name, the density at the last level")
    if schedule.densities or schedule.sparsity is not None:
        given = "densities" if schedule.densities else "sparsity"
        raise BadValue(f"scope 'table' says itself where the last level ends; give levels instead of {given}")
    totals = tensors.totals
    goals = {name: Fraction(size) for name, size in tensors.sizes.items()}
    for name, density in _named(schedule.layer_densities, list(totals)).items():
        goals[name] = totals[name] * rational(density)
        if round_half_up(goals[name]) > tensors.sizes[name]:
            raise BadValue(f"density {density:g} of {name!r} is more than that of the network as given")
        if round_half_up(goals[name]) < min(schedule.guard, tensors.sizes[name]):
            raise BadValue(
                f"density {density:g} would leave {round_half_up(goals[name])} of the {totals[name]} weights of "
                f"{name!r}; the guard asks for {schedule.guard}"
            )
    return [
        {name: _between(size, goals[name], level, schedule.levels) for name, size in tensors.sizes.items()}
        for level in range(schedule.levels + 1)
    ]


def _named(layer_densities: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return the density of every tensor that is named; an exact name beats a pattern, a later pattern an earlier."""
    for density in layer_densities.values():
        if density != 1:
            check_fraction("density", density, zero=False)
    return values_by_name(layer_densities, names, "layer_densities")


def _between(size: int, goal: Fraction, level: int, levels: int) -> int:
    """Return size · (goal / size) ** (level / levels), rounded half up, without a floating-point number."""
    if level == 0 or size == 0:
        return size
    # x = 2y rounded down satisfies x**levels <= (2y)**levels, a rational; y rounds half up to (x + 1) // 2.
    doubled = _root(math.floor(2**levels * size ** (levels - level) * goal**level), levels)
    return min(size, (doubled + 1) // 2)


def _root(value: int, degree: int) -> int:
    """Return the largest integer whose power is at most `value`."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle)
    return low
