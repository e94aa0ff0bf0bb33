"""Orthogonal matrices, every one as likely as every other (Haar's measure)."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pruning.starts.weight import Weight

Floats = NDArray[np.float64]


def haar(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Return a random matrix [rows, columns] whose shorter side is orthonormal.

    The signs of R's diagonal are taken into Q: without that, Q follows the library's choice of signs, and is not
    uniform.

    Source: Mezzadri 2007, How to generate random matrices from the classical compact groups (arXiv math-ph/0609050).

    >>> tall = haar(np.random.default_rng(0), 5, 3)
    >>> bool(abs(tall.T @ tall - np.eye(3)).max() < 1e-14)
    True
    """
    from scipy import linalg

    drawn = rng.standard_normal((max(rows, columns), min(rows, columns)))
    # scipy's is faster than NumPy's, and returns more than a pair only where it is asked to pivot.
    q, r = cast(tuple[Floats, Floats], linalg.qr(drawn, mode="economic", overwrite_a=True, check_finite=False))
    q *= np.copysign(1.0, np.diagonal(r))
    return q if rows >= columns else q.T


def masked_haar(weight: Weight, rng: np.random.Generator, gain: float) -> Floats:
    """Return a random orthogonal matrix [out, in · taps] times gain / √density, of the weight's shape.

    With a full mask it is `haar`'s. A mask keeps the mean square of the entries that it keeps, and breaks the isometry.

    >>> masked_haar(Weight("w", np.ones((2, 3), bool)), np.random.default_rng(0), 2.0).shape
    (2, 3)
    """
    drawn = haar(rng, weight.outputs, weight.inputs * weight.taps)
    # A weight without live entries is all zeros, whatever it is divided by.
    drawn *= gain / math.sqrt(weight.density or 1.0)
    return drawn.reshape(weight.shape)


def haar_bases(rng: np.random.Generator, count: int, size: int) -> Floats:
    """Return random orthonormal bases [count, size, size], one vector a row.

    >>> bases = haar_bases(np.random.default_rng(0), 2, 9)
    >>> bool(abs(bases @ bases.transpose(0, 2, 1) - np.eye(9)).max() < 1e-14)
    True
    """
    q, r = np.linalg.qr(rng.standard_normal((count, size, size)))
    return q * np.copysign(1.0, np.diagonal(r, axis1=1, axis2=2))[:, None, :]
