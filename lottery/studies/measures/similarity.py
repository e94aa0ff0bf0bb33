"""How alike two representations of the same examples are: linear centred kernel alignment (CKA)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning.errors import BadValue

_COLUMNS = 4096


def unit_kernel(features: ArrayLike, debiased: bool = False) -> NDArray[np.float64]:
    """Return the centred linear kernel of a representation, scaled to Frobenius norm 1.

    Args:
        features: [N, F] of any real type.
        debiased: centre so that the expected product with an unrelated kernel is 0 (U-centring: zero diagonal).

    Returns:
        [N, N]; NaN everywhere where all examples have the same features.

    Raises:
        BadValue: not a matrix, or fewer examples than centring needs (2, or 4 where debiased).
    """
    x = np.asarray(features)
    least = 4 if debiased else 2
    if x.ndim != 2 or len(x) < least:
        raise BadValue(f"CKA needs features [N, F] of at least {least} examples, not shape {x.shape}")
    kernel = np.zeros((len(x), len(x)))
    # Wide layers: the copy in double precision is made a block of columns at a time.
    for start in range(0, x.shape[1], _COLUMNS):
        block = x[:, start : start + _COLUMNS].astype(np.float64)
        block -= block.mean(0)
        kernel += block @ block.T
    if np.trace(kernel) <= _rounding(x):
        return np.full_like(kernel, np.nan)
    if debiased:
        kernel = _u_centred(kernel)
    return kernel / np.linalg.norm(kernel)


def kernel_alignment(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """Return the CKA of two representations of the same examples, from their unit kernels (see `unit_kernel`).

    1 for the same up to rotation and scale, 0 for unrelated ones, below which it may fall where debiased: of centred
    features ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), and NaN where all examples have the same features.

    Source: Kornblith et al. 2019, section 3 (arXiv 1905.00414); without bias by Song et al. 2007, equation 4, in the
    U-centred form of Székely & Rizzo 2014.

    >>> one = unit_kernel(np.array([[1.0], [-1.0]]))
    >>> kernel_alignment(one, one)
    1.0
    """
    return float(np.vdot(first, second))


def _u_centred(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    count = len(kernel)
    hollow = kernel.copy()
    np.fill_diagonal(hollow, 0.0)
    rows = hollow.sum(0) / (count - 2)
    centred = hollow - rows - rows[:, None] + hollow.sum() / ((count - 1) * (count - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def _rounding(x: NDArray[Any]) -> float:
    """Return the sum of squares that subtracting the mean of equal rows leaves behind."""
    peak = float(np.abs(x).max(initial=0.0))
    return x.size * (math.ulp(1.0) * 4 * peak) ** 2
