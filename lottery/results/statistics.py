"""Statistics of plain numbers and of levels: means with intervals, paired differences, tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lottery.results.intervals import standard_error, t_interval, wilson_interval
from lottery.results.levels import Level, Replicate, mean
from lottery.state.counts import check_count
from pruning.errors import BadValue

# With up to this many differences, all 2 ** n assignments of signs are computed.
_EXACT = 16


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval, or None where a single value gives none.
        high: upper end of the interval, or None where a single value gives none.
        n: how many values (pairs, runs) it is of.
        method: how the interval was made, in words.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


def mean_t(values: ArrayLike) -> Estimate | None:
    """Return the mean with Student's t interval; None of nothing, no interval of a single value.

    Raises:
        BadValue: values that are no row of finite numbers.

    >>> mean_t([0.5, 0.5])
    Estimate(value=0.5, low=0.5, high=0.5, n=2, method="Student's t")
    """
    data = finite_array(values, 1)
    if len(data) == 0:
        return None
    value = float(data.mean())
    bounds = t_interval(data)
    if bounds is None:
        return Estimate(value, None, None, 1, "one value")
    return Estimate(value, *bounds, len(data), "Student's t")


def paired_difference(a: ArrayLike, b: ArrayLike) -> Estimate | None:
    """Return the mean of a − b, pair by pair, with Student's t interval; None without a pair.

    Raises:
        BadValue: rows of different length, or values that are not finite.

    >>> paired_difference([3.0, 5.0], [2.0, 2.0]).value
    2.0
    """
    return mean_t(differences(a, b))


def paired_t_p(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return the two-sided p-value of the paired t test: the interval of `paired_difference` holds 0 where p > 0.05.

    None where the test is not defined: fewer than two pairs, or differences without any spread.
    """
    data = differences(a, b)
    if len(data) < 2 or without_spread(data):
        return None
    from scipy.special import stdtr

    return float(2 * stdtr(len(data) - 1, -abs(data.mean() / standard_error(data))))


def sign_flip_p(a: ArrayLike, b: ArrayLike, resamples: int = 9_999, seed: int = 0) -> float | None:
    """Return the two-sided p-value of a − b by flipping the signs of the differences; None without a pair.

    It assumes nothing but that without an effect either sign is as likely (Fisher 1935, section 21). Up to 16 pairs
    every assignment of signs is looked at, and the value is exact; beyond, `resamples` random ones and the observed
    one. With n pairs it is never below 2 / 2 ** n: five replicates cannot reach 0.05.

    >>> sign_flip_p([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    0.25
    """
    data = differences(a, b)
    n = len(data)
    if n == 0:
        return None
    observed = abs(data.sum())
    if n <= _EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (resamples, n))
        signs = np.concatenate([np.ones((1, n)), 1 - 2 * drawn])
    # Sums in another order round differently, and must count as equal.
    slack = 1e-12 * np.abs(data).sum()
    return float(np.mean(np.abs(signs @ data) >= observed - slack))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for their number, in the same order (Holm 1979, a step-down procedure).

    Raises:
        BadValue: a value outside 0 … 1.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = finite_array(p_values, 1)
    if ((p < 0) | (p > 1)).any():
        raise BadValue("p-values lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def expected_best(values: ArrayLike, n: int) -> float:
    """Return the expected largest of n draws, with replacement, from these values.

    Σ v₍ᵢ₎ [(i/N)ⁿ − ((i−1)/N)ⁿ] over the N sorted values (Dodge et al. 2019, section 3, arXiv 1909.03004). For a
    smallest one negate the values and the result.

    Raises:
        BadValue: no row of finite numbers, an empty one, or n below 1.

    >>> expected_best([1.0, 2.0, 4.0], 1) == 7 / 3, expected_best([0.0, 1.0], 2)
    (True, 0.75)
    """
    check_count("n", n)
    data = np.sort(finite_array(values, 1))
    if len(data) == 0:
        raise BadValue("the best of no values is not known: give one at least")
    below = (np.arange(len(data) + 1) / len(data)) ** n
    return float(data @ np.diff(below))


def differences(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return a − b, pair by pair; raises `BadValue` for rows of different length or values that are not finite."""
    left, right = finite_array(a, 1), finite_array(b, 1)
    if len(left) != len(right):
        raise BadValue(f"pairs need as many values on either side, not {len(left)} and {len(right)}")
    return left - right


def without_spread(values: NDArray[np.float64]) -> bool:
    """Say whether values of order 1 differ by no more than rounding, as 0.9 − 0.8 and 0.8 − 0.7 do.

    >>> without_spread(np.array([0.9 - 0.8, 0.8 - 0.7])), without_spread(np.array([0.9, 0.8]))
    (True, False)
    """
    return float(np.ptp(values)) <= 1e-12 * max(1.0, float(np.abs(values).max()))


def finite_array(values: ArrayLike, axes: int) -> NDArray[np.float64]:
    """Return an array with `axes` axes; raises `BadValue` for other shapes and for values that are not finite."""
    data = np.asarray(values, dtype=float)
    if data.ndim != axes:
        raise BadValue(f"expected {'a row' if axes == 1 else 'a matrix'} of numbers, not the shape {data.shape}")
    if not np.isfinite(data).all():
        raise BadValue("values must be finite: leave out what diverged")
    return data


def reported(replicate: Replicate) -> float:
    """Return what is reported of a replicate: its test metric, or the validation metric without a test part."""
    return replicate.validation if replicate.test is None else replicate.test


def by_seed(level: Level) -> dict[int, float]:
    """Return what is reported of every replicate that did not diverge, by its seed; what is not finite is missing."""
    values = {replicate.seed: reported(replicate) for replicate in level.alive}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def pairs(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """Return the values of the seeds that both have, in the order of the seeds.

    >>> pairs({0: 0.5, 1: 0.6}, {1: 0.7, 2: 0.8})
    ([0.6], [0.7])
    """
    common = sorted(a.keys() & b.keys())
    return [a[seed] for seed in common], [b[seed] for seed in common]


def level_estimate(level: Level, is_fraction: bool, examples: int | None) -> Estimate | None:
    """Return a level's mean reported metric with its interval (see `interval`); None where every replicate diverged."""
    found = mean_t(list(by_seed(level).values()))
    bounds = interval(level, is_fraction, examples)
    if found is None or bounds is None:
        return found
    method = found.method if found.n > 1 else "Wilson"
    return Estimate(found.value, bounds[0], bounds[1], found.n, method)


def interval(level: Level, is_fraction: bool, examples: int | None) -> tuple[float, float] | None:
    """Return a 95 % interval of the level's mean test metric.

    Over two or more replicates it is Student's t interval (of a fraction, within 0 and 1). With one replicate it is
    Wilson's interval for a fraction of this many test examples, which knows nothing of the spread between seeds. None
    where neither can be had.

    >>> interval(Level(0, ()), True, 100) is None
    True
    """
    values = list(by_seed(level).values())
    bounds = t_interval(values)
    if bounds is not None:
        return (max(0.0, bounds[0]), min(1.0, bounds[1])) if is_fraction else bounds
    if len(values) == 1 and is_fraction and examples:
        return wilson_interval(round(values[0] * examples), examples)
    return None


def against_dense(level: Level, dense: Level) -> float | None:
    """Return the mean paired difference of the test metric to the dense network of the same seed."""
    here, there = pairs(_tests(level), _tests(dense))
    return mean(here) - mean(there) if here else None


def _tests(level: Level) -> dict[int, float]:
    values = {replicate.seed: replicate.test for replicate in level.alive if replicate.test is not None}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}
