"""Starts of low rank."""

from __future__ import annotations

import warnings

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer, leave_lookups
from pruning.starts.gains import gain_before
from pruning.starts.weight import Array, Weight


class RankLost(UserWarning):
    """A mask made a low-rank start one of high rank; the message has both ranks, as measured."""


@initializer("low-rank", source="Liu et al. 2024 (arXiv 2310.08513)")
def low_rank(
    weight: Weight,
    rng: np.random.Generator,
    *,
    rank: int = 1,
    gain: float | None = None,
    activation: str | None = None,
) -> Array:
    """The `rank` largest directions of a Gaussian draw, with the draw's own norm; warns where a mask undoes the rank.

    The norm is that of the Gaussian draw of variance gain² / fan_in under the mask. A mask without structure gives back
    nearly full rank: to keep the rank, mask the two factors of the matrix, or whole units and inputs.

    Raises:
        BadValue: a rank below 1.
    """
    leave_lookups(weight)
    if rank < 1:
        raise BadValue(f"init_params.rank is {rank}: expected 1 or more")
    drawn = rng.standard_normal((weight.outputs, weight.inputs * weight.taps))
    keep = weight.keep.reshape(drawn.shape)
    scaled = gain_before(weight, gain, activation) / np.sqrt(np.maximum(1, weight.fan_in))[:, None] * keep * drawn
    first, second = _largest(drawn, rank)
    masked = np.where(keep, first @ second, 0)
    norm = np.linalg.norm(masked)
    if not keep.all():
        # The second factor's rows are orthonormal: the first has the rank of both.
        _tell(weight, first, masked, rank)
    # Where nothing is live, nothing has a norm.
    return (masked * (np.linalg.norm(scaled) / norm if norm else 1.0)).reshape(weight.shape)


def _largest(matrix: Array, rank: int) -> tuple[Array, Array]:
    """Return the best approximation of this rank as two factors; the rows of the second are orthonormal."""
    size = matrix.shape[1]
    if matrix.shape[0] < size:
        left = _directions(matrix @ matrix.T, rank)
        q, r = np.linalg.qr((left.T @ matrix).T)
        return left @ r.T, q.T
    right = _directions(matrix.T @ matrix, rank)
    return matrix @ right, right.T


def _directions(gram: Array, count: int) -> Array:
    from scipy import linalg

    size = len(gram)
    return linalg.eigh(gram, subset_by_index=(max(0, size - count), size - 1))[1]


def _tell(weight: Weight, before: Array, after: Array, rank: int) -> None:
    ranks = [int(np.linalg.matrix_rank(matrix)) for matrix in (before, after)]
    if ranks[1] > ranks[0]:
        warnings.warn(
            f"low-rank: the mask of {weight} (density {weight.density:.3g}) takes the rank from {ranks[0]} to "
            f"{ranks[1]}; mask whole units or inputs, or the two factors of rank {rank}, to keep it",
            RankLost,
            stacklevel=3,
        )
