"""Linear systems on the support of a mask: what merging tickets by their statistics solves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import aslinearoperator, cg

from pruning.errors import RunError


def solve_on_support(
    matrix: NDArray[np.float64], right: NDArray[np.float64], keep: NDArray[np.bool_], tolerance: float = 1e-12
) -> NDArray[np.float64]:
    """Return x with A x = b where the mask keeps, and 0 elsewhere, by conjugate gradients on x → M (A (M x)).

    Args:
        matrix: A, symmetric and positive definite: a sum of Gram matrices.
        right: b.
        keep: M, boolean, as long as b.
        tolerance: of the residual, beside b.

    Raises:
        RunError: the iteration did not arrive: A is singular on the support.

    Source: Tam et al. 2023, merging by matching models in task subspaces (arXiv 2312.04339).

    >>> solve_on_support(np.diag([2.0, 4.0]), np.array([2.0, 8.0]), np.array([False, True])).tolist()
    [0.0, 2.0]
    """
    masked = keep.astype(np.float64)
    size = len(right)
    on_support = masked[:, None] * matrix * masked
    found, failed = cg(aslinearoperator(on_support), masked * right, rtol=tolerance, atol=0.0, maxiter=10 * size)
    if failed:
        raise RunError(f"conjugate gradients did not arrive in {10 * size} steps: the matrix is singular on the mask")
    return masked * found
