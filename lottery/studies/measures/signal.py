"""How a signal passes through a network at its start, and what scores say of it: measures on plain arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Larger matrices are not decomposed: it would take longer than all the rest.
LARGEST = 1024
_TINY = 1e-5


def mean_square(values: Array) -> float:
    """Return E[z²] over examples, units and positions.

    >>> mean_square(np.array([[3.0, 4.0]]))
    12.5
    """
    return float(np.mean(np.square(values, dtype=np.float64)))


def squared_correlation(values: Array) -> float:
    """Return the mean squared cosine between what two different inputs make, over all pairs; NaN for nothing.

    1: the inputs cannot be told apart any more.

    Args:
        values: [examples, ...].

    >>> round(squared_correlation(np.array([[1.0, 0.0], [0.0, 2.0]])), 3), squared_correlation(np.ones((3, 2)))
    (0.0, 1.0)
    """
    rows = values.reshape(len(values), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    rows = rows[norms > 0] / norms[norms > 0, None]
    if len(rows) < 2:
        return math.nan
    cosines = np.clip(rows @ rows.T, -1, 1)[~np.eye(len(rows), dtype=bool)]
    return float(np.mean(cosines**2).round(12))


def dead_units(values: Array, gradients: Array, axis: int) -> int:
    """Return how many units give the same whatever the input, or are never heard of by the outputs.

    Args:
        values: what a layer gives out, [examples, ...].
        gradients: of the outputs at these values.
        axis: the axis of the units.

    >>> dead_units(np.array([[1.0, 2.0, 3.0], [1.0, 5.0, 4.0]]), np.array([[1.0, 0.0, 1.0]] * 2), 1)
    2
    """
    units = values.shape[axis]
    flat = np.moveaxis(values, axis, 0).reshape(units, -1)
    heard = np.moveaxis(gradients, axis, 0).reshape(units, -1)
    return int(((flat == flat[:, :1]).all(1) | (heard == 0).all(1)).sum())


def singular_values(matrix: Array) -> NDArray[np.float64] | None:
    """Return the singular values of a matrix, the largest first; None for one too large to be decomposed here.

    >>> singular_values(np.array([[0.0, 2.0], [1.0, 0.0]]))
    array([2., 1.])
    """
    if min(matrix.shape) > LARGEST:
        return None
    wide = matrix.astype(np.float64) if matrix.shape[0] <= matrix.shape[1] else matrix.T.astype(np.float64)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0))


def condition(kernel: Array) -> float:
    """Return the condition number of a kernel matrix; infinite where it is singular.

    >>> condition(np.diag([4.0, 1.0])), condition(np.zeros((2, 2)))
    (4.0, inf)
    """
    eigenvalues = np.linalg.eigvalsh(kernel.astype(np.float64))
    largest, least = float(eigenvalues[-1]), float(eigenvalues[0])
    return largest / least if least > largest * 1e-12 else math.inf


def tangent_alignment(first: Array, second: Array) -> float:
    """Return ⟨K, K'⟩ / (‖K‖ ‖K'‖) of two tangent kernels on one batch: 1 where training is lazy.

    Source: Liu et al. 2024, rich and lazy learning (arXiv 2310.08513).

    >>> tangent_alignment(np.eye(2), 3 * np.eye(2))
    1.0
    """
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float((first * second).sum() / norms) if norms else math.nan


def jacobian_covariance(gradients: Array) -> float:
    """Return -Σ (log(v + ε) + 1 / (v + ε)) over eigenvalues v of the correlations of input gradients; higher is better.

    Args:
        gradients: of the summed outputs at the inputs, one row for each example.

    Source: Mellor et al. 2020, version 1, section 3 (arXiv 2006.04647).

    >>> round(jacobian_covariance(np.eye(3) - 1 / 3), 3)
    -99990.631
    """
    if len(gradients) < 2 or not np.isfinite(gradients).all() or (gradients == gradients[:, :1]).all(1).any():
        return math.nan
    values = np.linalg.eigvalsh(np.corrcoef(gradients)) + _TINY
    values = np.maximum(values, _TINY)
    return float(-(np.log(values) + 1 / values).sum())


def epsinas(first: Array, second: Array) -> float:
    """Return how differently a network answers with two constant weights: mean |y - y'| / mean y.

    Outputs are scaled to [0, 1] by their least and their largest value, and what is 0 then is left out.

    Args:
        first: outputs with one constant for every weight that is kept, biases 0.
        second: outputs with another constant.

    Source: Gracheva 2022, section 3 (arXiv 2302.04406).

    >>> round(epsinas(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])), 3)
    0.182
    """
    scaled: list[NDArray[np.float64]] = []
    for values in (first, second):
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(low + high) or low == high:
            return math.nan
        one = (values.astype(np.float64) - low) / (high - low)
        scaled.append(np.where(one == 0, math.nan, one))
    both = ~np.isnan(scaled[0]) & ~np.isnan(scaled[1])
    if not both.any():
        return math.nan
    difference = float(np.abs(scaled[0] - scaled[1])[both].mean())
    return difference / float(np.nanmean(np.concatenate([each.ravel() for each in scaled])))
