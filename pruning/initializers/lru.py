"""Recurrent layers whose eigenvalues lie in a ring."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.initializers import LeftAlone, initializer
from pruning.starts.distributions import spread
from pruning.starts.layers.ring import lru_ring
from pruning.starts.weight import Array, Weight


@initializer("lru", source="Orvieto et al. 2023 (arXiv 2303.06349)")
def lru(
    weight: Weight,
    rng: np.random.Generator,
    *,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
) -> Array:
    """A recurrent matrix of 2 × 2 rotations, eigenvalues spread evenly over a ring; its inputs 1/√(2 fan_in) Gaussian.

    Units 2k and 2k + 1 are the two parts of one complex state, a unit left over is a real one. A mask must keep a
    state's four entries, or remove both its units whole. `pruning.starts.layers.ring` has the parameters of a true LRU
    layer.

    Raises:
        BadValue: a mask that cuts a state in two, or a ring that is none (`lru_ring`).
        LeftAlone: layers that are not recurrent, and recurrent layers with gates.
    """
    if weight.kind not in ("recurrent", "recurrent input"):
        raise LeftAlone("it is no recurrent layer: 'lru' draws only those")
    if weight.part:
        raise LeftAlone("a recurrent layer with gates has no eigenvalues of its own: 'lru' draws those without")
    if weight.kind == "recurrent input":
        std = 1 / np.sqrt(2 * np.maximum(1, weight.by_output(weight.fan_in)))
        return std.astype(np.float32) * spread("normal", rng, weight.shape)
    if weight.outputs != weight.inputs:
        raise LeftAlone("a recurrent matrix that is not square has no eigenvalues")
    return _rotations(weight, lru_ring(math.ceil(weight.outputs / 2), rng, r_min, r_max, max_phase).eigenvalues)


def _rotations(weight: Weight, eigenvalues: NDArray[np.complex128]) -> Array:
    values = np.zeros(weight.shape)
    for state, eigenvalue in enumerate(eigenvalues):
        units = slice(2 * state, 2 * state + 2)
        real, imaginary = eigenvalue.real, eigenvalue.imag
        block = np.array([[real, -imaginary], [imaginary, real]])
        whole = min(2, weight.outputs - 2 * state)
        values[units, units] = block if whole == 2 else abs(eigenvalue)
    gone = weight.fan_in == 0
    cut = [int(unit) for unit in np.flatnonzero(((values != 0) & ~weight.keep).any(axis=1)) if not gone[unit]]
    if cut:
        raise BadValue(
            f"lru needs the 2 × 2 blocks on the diagonal: the mask cuts those of {len(cut)} of {weight.outputs} units "
            f"of {weight}, unit {cut[0]} first; remove whole states (units 2k and 2k + 1), or take init 'unit-scaled'"
        )
    return values
