"""Approximate dynamical isometry under a given mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pruning.errors import BadValue, shown
from pruning.repairs import Mended, repair
from pruning.repairs._descent import Descent, descend
from pruning.starts.effective_density import effective_density
from pruning.starts.gains import gain_before
from pruning.starts.left_alone import LeftAlone
from pruning.starts.structural_rank import structural_rank
from pruning.starts.weight import Array, Weight


@dataclass(frozen=True)
class Isometry:
    """How far a matrix W (divided by its gain) is from an isometry.

    Attributes:
        penalty_before: ‖WWᵀ - I‖, Frobenius, of the smaller of the two Gram matrices.
        penalty_after: the same after the repair.
        floor: the smallest penalty that the mask allows, √(side - rank).
        rank: structural rank: the highest rank that the mask allows.
        side: the smaller side of the matrix.
        effective_density_before: participation ratio of w² as a share of the live weights: 1/3 for normal weights.
        effective_density_after: the same after the repair; 1 / (live weights in a row) is a permutation.
        singular_before: the smallest and the largest singular value.
        singular_after: the same after the repair.
        steps: of the descent.
        ended: why it ended.
    """

    penalty_before: float
    penalty_after: float
    floor: float
    rank: int
    side: int
    effective_density_before: float
    effective_density_after: float
    singular_before: tuple[float, float]
    singular_after: tuple[float, float]
    steps: int
    ended: str


@repair("isometry", source="after Lee et al. 2020 (arXiv 1906.06307), who minimize with spread 0")
def isometry(
    weight: Weight,
    values: Array,
    *,
    gain: float | None = None,
    activation: str | None = None,
    spread: float = 0.1,
    least: float = 0.0,
    stop: float = 1e-3,
    progress: float = 2e-3,
    steps: int = 1000,
) -> Mended:
    """Live weights for which the matrix is nearest to an isometry (times the gain); without data.

    Minimizes ‖WWᵀ - I‖² + spread · Σw⁴, where W is the matrix [out, in · taps] divided by its gain, from `values` on;
    the result is scaled to its lowest penalty. With spread 0, which is the method of the paper, low densities make W
    nearly a permutation: few weights hold everything. `spread` is the price of that (an addition of this project),
    `least` an early stop before it.

    Args:
        weight: the mask, and the activation for the gain.
        values: what it starts from.
        gain: what all singular values shall be; None for that of the activation.
        activation: the activation whose gain is taken; None for the one that was found.
        spread: the price of weights that hold more than others; 0 for none.
        least: the effective density at which it stops.
        stop: it stops where the penalty is nearer to the floor than this share of the way from the start.
        progress: it has converged where 20 steps lower the objective's root by less than this share of it.
        steps: the most that it takes.

    Raises:
        BadValue: a setting outside its range; an activation that was not found.
        LeftAlone: an embedding, which multiplies nothing; a weight without live entries, or whose live entries are 0.
    """
    if gain is not None and not 0 < gain < math.inf:
        raise BadValue(f"gain of repair 'isometry' is above 0, not {shown(gain)}")
    for name, value in {"spread": spread, "steps": steps}.items():
        if not 0 <= value < math.inf:
            raise BadValue(f"{name} of repair 'isometry' is 0 or more, not {shown(value)}")
    for name, value in {"least": least, "stop": stop, "progress": progress}.items():
        if not 0 <= value < 1:
            raise BadValue(f"{name} of repair 'isometry' is a share, from 0 to less than 1, not {shown(value)}")
    if weight.kind == "embedding":
        raise LeftAlone(f"{weight} is an embedding: its rows are looked up, nothing is multiplied with it")
    if not values[weight.keep].any():
        raise LeftAlone(f"every live entry of {weight} is 0: there is no direction to begin with")
    size = _gain(weight, gain, activation)
    keep = weight.keep.reshape(weight.outputs, -1)
    before = values.reshape(keep.shape).astype(np.promote_types(values.dtype, np.float32)) / size
    side, rank = min(keep.shape), structural_rank(keep)
    floor = math.sqrt(side - rank)
    # Which of many minima is found depends on rounding, and rounding on how many threads share a product.
    with threadpool_limits(1, "blas"):
        found = descend(before, keep, Descent(spread, least, stop, progress, steps, floor))
    squared_before, squared_after = _squared_singular(before), _squared_singular(found.values)
    # The price of Σw⁴ shrinks W a little, and so does an early end; where there is neither, this is 1.
    scale = float(squared_after.sum() / np.square(squared_after).sum())
    squared_after = scale * squared_after
    report = Isometry(
        penalty_before=_penalty(squared_before),
        penalty_after=_penalty(squared_after),
        floor=floor,
        rank=rank,
        side=side,
        effective_density_before=effective_density(before, keep),
        effective_density_after=effective_density(found.values, keep),
        singular_before=_ends(squared_before),
        singular_after=_ends(squared_after),
        steps=found.steps,
        ended=found.ended,
    )
    return Mended((found.values * (size * math.sqrt(scale))).reshape(weight.shape), report)


def _gain(weight: Weight, gain: float | None, activation: str | None) -> float:
    if gain is None and activation is None and weight.activation is None:
        raise BadValue(
            f"which function the result of {weight} goes through was not found: name it, as "
            "--set repair_params.activation=relu, or give a gain, as --set repair_params.gain=1.4"
        )
    return gain_before(weight, gain, activation)


def _squared_singular(matrix: Array) -> NDArray[np.float64]:
    """Return the squared singular values, the smallest first: as many as the smaller side."""
    wide = matrix.astype(np.float64) if matrix.shape[0] <= matrix.shape[1] else matrix.T.astype(np.float64)
    return np.maximum(0, np.linalg.eigvalsh(wide @ wide.T))


def _penalty(squared: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.square(squared - 1).sum()))


def _ends(squared: NDArray[np.float64]) -> tuple[float, float]:
    return math.sqrt(squared[0]), math.sqrt(squared[-1])
