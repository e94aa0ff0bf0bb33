"""Resampling: bootstrap intervals, of a statistic, of the interquartile mean, of a paired difference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lottery.results.statistics import Estimate, finite_array, without_spread
from pruning.errors import BadValue

RESAMPLES = 9_999


def bootstrap(
    values: ArrayLike, statistic: Callable[..., Any] = np.mean, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate | None:
    """Return a statistic with its bootstrap interval; None of nothing, no interval of a single value.

    Args:
        values: a row of numbers.
        statistic: of an array; faster where it has a parameter `axis`.
        resamples: how many.
        seed: the seed of the resampling: the same call gives the same interval.

    Returns:
        The estimate, with the bias-corrected and accelerated (BCa) interval (Efron 1987). Where that does not exist
        (every resample on one side of the statistic) it is the percentile interval, and its `method` says so. Values
        that are all equal have an interval of width zero.

    Raises:
        BadValue: values that are no row of finite numbers.
    """
    data = finite_array(values, 1)
    if len(data) == 0:
        return None
    value = float(statistic(data))
    if len(data) == 1:
        return Estimate(value, None, None, 1, "one value")
    low, high, method = _bounds((data,), statistic, ("BCa", "percentile"), resamples, seed)
    return Estimate(value, low, high, len(data), method)


def interquartile_mean(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | None:
    """Return the mean of the middle half of all values, with its bootstrap interval.

    Args:
        values: a row of runs, or a matrix [runs, tasks], whose runs are resampled within each task.
        resamples: how many.
        seed: the seed of the resampling.

    Returns:
        The estimate; None of nothing. A row has the BCa interval, a matrix the percentile interval of the stratified
        bootstrap. `n` counts runs.

    Raises:
        BadValue: neither a row nor a matrix of finite numbers.

    Source: Agarwal et al. 2021, section 4.3 (arXiv 2108.13264). A quarter of the values that is no whole number is cut
    off by weight; for a multiple of four values this is `scipy.stats.trim_mean(values, 0.25)`.

    >>> interquartile_mean([0.0, 1.0, 2.0, 9.0]).value
    1.5
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 2:
        return bootstrap(data, middle_half, resamples, seed)
    data = finite_array(data, 2)
    if data.size == 0:
        return None
    value = float(middle_half(data.ravel()))
    if len(data) == 1:
        return Estimate(value, None, None, 1, "one run")

    def pooled(*tasks: NDArray[Any], axis: int = -1) -> Any:
        return middle_half(np.concatenate(tasks, axis=axis), axis=axis)

    low, high, method = _bounds(tuple(data.T), pooled, ("percentile",), resamples, seed)
    return Estimate(value, low, high, len(data), f"stratified {method}")


def middle_half(values: ArrayLike, axis: int = -1) -> Any:
    """Return the mean over the middle half of the sorted values along an axis.

    >>> float(middle_half([0.0, 1.0, 5.0]))  # (0.25 · 0 + 1 + 0.25 · 5) / 1.5
    1.5
    """
    data = np.sort(np.asarray(values, dtype=float), axis=axis)
    n = data.shape[axis]
    ranks = np.arange(n)
    # What of the unit at each rank lies between the first and the third quarter.
    weights = np.clip(np.minimum(ranks + 1, 0.75 * n) - np.maximum(ranks, 0.25 * n), 0, 1)
    return np.moveaxis(data, axis, -1) @ (weights / weights.sum())


def _bounds(
    data: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    methods: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[float, float, str]:
    """Return low, high and the name of the first of the methods that gives an interval."""
    from scipy import stats  # it takes a second to import

    if all(without_spread(sample) for sample in data):
        value = float(statistic(*data))
        return value, value, f"{methods[0]} bootstrap"
    for method in methods:
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                data, statistic, n_resamples=resamples, method=method, rng=np.random.default_rng(seed)
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            return float(found.low), float(found.high), f"{method} bootstrap"
    raise BadValue("the statistic gives no finite bootstrap interval for these values")
