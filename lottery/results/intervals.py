"""95 % intervals of plain numbers: over replicates, and over pairs of replicates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bounds = tuple[float, float]

# The 0.975 quantile of the normal distribution, as `scipy.special.ndtri` gives it.
_NORMAL = 1.959963984540054


def t_quantile(freedom: int) -> float:
    """Return the 0.975 quantile of Student's t with `freedom` degrees of freedom.

    >>> round(t_quantile(1), 3)
    12.706
    """
    from scipy.special import stdtrit  # what `scipy.stats` calls, which takes a second to import

    return float(stdtrit(freedom, 0.975))


def standard_error(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the standard error of the mean of a sample of at least two.

    >>> standard_error([0.0, 2.0])
    1.0
    """
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def wilson_interval(successes: int, count: int) -> Bounds:
    """Return Wilson's 95 % interval of a fraction (Newcombe 1998, method 3).

    Args:
        successes: how many of the examples.
        count: the number of examples, at least 1.

    >>> low, high = wilson_interval(2, 4)
    >>> round(low, 2), round(high, 2)
    (0.15, 0.85)
    """
    share = successes / count
    below = 2 * (count + _NORMAL**2)
    centre = (2 * count * share + _NORMAL**2) / below
    half = _NORMAL / below * math.sqrt(4 * count * share * (1 - share) + _NORMAL**2)
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == count else centre + half


def t_interval(
    values: Sequence[float] | NDArray[np.float64], least: float = -math.inf, most: float = math.inf
) -> Bounds | None:
    """Return Student's 95 % t interval of a mean; None for fewer than two values.

    Args:
        values: a sample.
        least: a lower bound of all values and of the interval.
        most: an upper bound of all values and of the interval.

    >>> t_interval([1.0]) is None
    True
    >>> low, high = t_interval([0.0, 2.0])
    >>> round(low, 2), round(high, 2)
    (-11.71, 13.71)
    """
    if len(values) < 2:
        return None
    centre, half = float(np.mean(values)), t_quantile(len(values) - 1) * standard_error(values)
    return max(least, centre - half), min(most, centre + half)


def pairs_interval(
    values: Sequence[float] | NDArray[np.float64], count: int, least: float = -math.inf, most: float = math.inf
) -> Bounds | None:
    """Return a 95 % interval of the mean over all pairs of `count` things; None for fewer than three things.

    Pairs share their members and are not independent, so a t interval over pairs would be too narrow. This is the
    delete-one jackknife over the things themselves (Arvesen 1969, on U-statistics), with Student's t.

    Args:
        values: one for each pair, in the order of `itertools.combinations(range(count), 2)`.
        count: the number of things.
        least: a lower bound of all values and of the interval.
        most: an upper bound of all values and of the interval.

    >>> pairs_interval([0.5, 0.5, 0.5], 3)
    (0.5, 0.5)
    """
    if count < 3:
        return None
    pairs = list(itertools.combinations(range(count), 2))
    values = np.asarray(values, np.float64)
    without = np.array([values[[i not in pair for pair in pairs]].mean() for i in range(count)])
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    centre, half = float(values.mean()), float(t_quantile(count - 1) * error)
    return max(least, centre - half), min(most, centre + half)
