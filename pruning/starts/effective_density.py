"""Effective density: over what share of the live weights the size of a matrix is spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning.starts.weight import Array


def effective_density(values: Array, keep: NDArray[np.bool_]) -> float:
    """Return the participation ratio of w² as a share of the live weights, (Σw²)² / (live · Σw⁴).

    1 where all live weights have one size, 1/3 for normal ones, 1/live where one weight holds everything; 0 where all
    are 0, or none is live.

    Args:
        values: weights, of any shape.
        keep: boolean, of the same shape: which of them are live. A live weight may be 0.

    >>> effective_density(np.array([2.0, -2.0, 0.0, 0.0, 9.0]), np.array([True, True, True, True, False]))
    0.5
    """
    squares = np.square(values[keep], dtype=np.float64)
    # Sizes do not matter, and the fourth power of small numbers is 0.
    squares /= squares.max(initial=np.finfo(np.float64).tiny)
    fourth = float(np.square(squares).sum())
    return float(squares.sum()) ** 2 / (len(squares) * fourth) if fourth else 0.0
