"""Energy of filters along orthogonal directions, and the principal components that give these."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning.errors import BadValue


def energy_profile(weights: ArrayLike, keep: ArrayLike, basis: ArrayLike) -> NDArray[np.float64]:
    """Return the mean energy of live filters along each direction, divided by its mean over directions.

    e_i² = (1/K) Σ_k (w_kᵀu_i)² over the K filters with a surviving weight. Weights drawn independently with one
    variance have 1 in expectation along every direction.

    Args:
        weights: [filters, …], masked: removed weights are 0.
        keep: the mask, of the same shape.
        basis: [directions, inputs], orthonormal rows.

    Returns:
        [directions]; NaN where no filter is live or all live ones are 0.

    Raises:
        BadValue: a basis of another size than a filter.

    >>> energy_profile([[2.0, 0.0], [0.0, 0.0]], [[1, 0], [0, 0]], [[1.0, 0.0], [0.0, 1.0]]).tolist()
    [2.0, 0.0]
    """
    filters = np.asarray(weights, np.float64)
    flat, axes = filters.reshape(len(filters), -1), np.asarray(basis, np.float64)
    if axes.ndim != 2 or axes.shape[1] != flat.shape[1]:
        raise BadValue(f"directions of {axes.shape[-1]} inputs do not fit filters of {flat.shape[1]}")
    live = np.asarray(keep, bool).reshape(len(flat), -1).any(1)
    energy = ((flat[live] @ axes.T) ** 2).sum(0) / max(1, live.sum())
    return energy / energy.mean() if energy.any() else np.full(len(axes), np.nan)


def principal_components(
    count: int, total: NDArray[Any], products: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances, falling, and principal components [components, features] from sums over vectors.

    Args:
        count: the number of vectors.
        total: their sum [features].
        products: the sum of their outer products [features, features].

    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    >>> principal_components(4, x.sum(0), x.T @ x)[0].tolist()
    [0.5, 0.125]
    """
    mean = np.asarray(total, np.float64) / count
    variances, vectors = np.linalg.eigh(np.asarray(products, np.float64) / count - np.outer(mean, mean))
    return np.maximum(variances[::-1], 0.0), vectors.T[::-1]
