"""Distributions of variance 1 from which initializers draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from pruning.errors import unknown
from pruning.starts.weight import Array

# A standard normal cut off at two standard deviations has this standard deviation.
_TRUNCATED_STD = 0.87962566103423978


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return standard normal numbers."""
    return rng.standard_normal(shape, dtype=np.float32)


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return numbers between -√3 and √3."""
    return (2 * rng.random(shape, dtype=np.float32) - 1) * np.float32(math.sqrt(3))


def truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return normal numbers cut off at two of their standard deviations, and scaled to variance 1 after that."""
    from scipy.special import ndtr, ndtri

    low, high = ndtr([-2.0, 2.0])
    drawn = ndtri(rng.uniform(low, high, shape)) / _TRUNCATED_STD
    return drawn.astype(np.float32)


DISTRIBUTIONS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": normal,
    "uniform": uniform,
    "truncated": truncated,
}


def spread(distribution: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return numbers of mean 0 and variance 1; raises `UnknownName` for a distribution that there is none of.

    >>> numbers = spread("truncated", np.random.default_rng(0), (100_000,))
    >>> round(float(numbers.var()), 2), bool(abs(numbers).max() <= 2 / 0.8796)
    (1.0, True)
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown("distribution", distribution, DISTRIBUTIONS)
    return DISTRIBUTIONS[distribution](rng, shape)
