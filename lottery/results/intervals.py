"""95 % intervals of plain numbers: over replicates, and over pairs of replicates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Bounds = tuple[float, float]


def t_interval(
    values: Sequence[float] | NDArray[np.float64], least: float = -math.inf, most: float = math.inf
) -> Bounds | None:
    """Return Student's 95 % t interval of a mean; None for fewer than two values.

    Args:
        values: a sample.
        least: what no value can fall below, nor the interval.
        most: what none can exceed.

    >>> t_interval([1.0]) is None
    True
    >>> low, high = t_interval([0.0, 2.0])
    >>> round(low, 2), round(high, 2)
    (-11.71, 13.71)
    """
    if len(values) < 2:
        return None
    centre, half = float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return max(least, centre - half), min(most, centre + half)


def pairs_interval(
    values: Sequence[float] | NDArray[np.float64], count: int, least: float = -math.inf, most: float = math.inf
) -> Bounds | None:
    """Return a 95 % interval of the mean over all pairs of `count` things; None for fewer than three things.

    Pairs share their members and are not independent, so a t interval over pairs would be too narrow. This is the
    delete-one jackknife over the things themselves (Arvesen 1969, on U-statistics), with Student's t.

    Args:
        values: one for each pair, in the order of `itertools.combinations(range(count), 2)`.
        count: of things.
        least: what no value can fall below, nor the interval.
        most: what none can exceed.

    >>> pairs_interval([0.5, 0.5, 0.5], 3)
    (0.5, 0.5)
    """
    if count < 3:
        return None
    pairs = list(itertools.combinations(range(count), 2))
    values = np.asarray(values, np.float64)
    without = np.array([values[[i not in pair for pair in pairs]].mean() for i in range(count)])
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    centre, half = float(values.mean()), float(stats.t.ppf(0.975, count - 1) * error)
    return max(least, centre - half), min(most, centre + half)
