"""Structural rank: the highest rank that a mask allows, and how near to an isometry it lets a matrix come."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def structural_rank(keep: NDArray[np.bool_]) -> int:
    """Return the highest rank of a matrix that is 0 outside the mask.

    It is the size of the largest set of live entries of which no two share a row or a column (a maximum bipartite
    matching); almost every choice of the live values reaches it.

    Args:
        keep: boolean [out, in, *taps]; each output is a row, each input at each tap a column.

    >>> structural_rank(np.array([[True, True, True], [True, False, False], [True, False, False]]))
    2
    """
    flat = keep.reshape(len(keep), -1)
    if flat.all() or not flat.any():
        return min(flat.shape) if flat.any() else 0
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return int((maximum_bipartite_matching(csr_matrix(flat), perm_type="column") >= 0).sum())


def isometry_floor(keep: NDArray[np.bool_]) -> float:
    """Return the smallest ‖WWᵀ - I‖ (Frobenius, the smaller of the two Gram matrices) that the mask allows.

    It is √(n - structural rank), where n is the smaller side: a rank that is missing costs 1, and a signed partial
    permutation inside the mask costs nothing else.

    Args:
        keep: as for `structural_rank`.

    >>> isometry_floor(np.array([[True, True], [False, False], [False, False]]))  # two equal columns of one entry each
    1.0
    """
    rows = len(keep)
    return math.sqrt(min(rows, keep.size // rows if rows else 0) - structural_rank(keep))
