"""Eigenvalues in a ring, and what a linear recurrent unit (LRU) is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ring:
    """The parameters of a diagonal recurrence h ← λ h + γ (B u), each [states].

    Attributes:
        nu: λ's modulus is exp(-exp(ν)).
        theta: λ's phase is exp(θ), in radians.
        gamma: √(1 - |λ|²): with it, white noise of variance 1 gives states of mean square 1.
    """

    nu: Floats
    theta: Floats
    gamma: Floats

    @property
    def eigenvalues(self) -> NDArray[np.complex128]:
        """λ, complex."""
        return np.exp(-np.exp(self.nu) + 1j * np.exp(self.theta))


def lru_ring(
    states: int, rng: np.random.Generator, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 2 * math.pi
) -> Ring:
    """Return eigenvalues spread evenly over a ring's area, as the parameters of an LRU layer. None is ever masked.

    A mask removes whole states of a recurrence, never a part of λ.

    Args:
        states: how many complex states.
        rng: where chance comes from.
        r_min: the ring's inner radius.
        r_max: its outer radius, 1 at most: beyond it states grow without end.
        max_phase: phases lie between 0 and this, in radians.

    Raises:
        BadValue: radii that are not 0 ≤ r_min < r_max ≤ 1, or a phase that is not above 0.

    Source: Orvieto et al. 2023, Resurrecting recurrent neural networks for long sequences (arXiv 2303.06349).

    >>> ring = lru_ring(1000, np.random.default_rng(0), r_min=0.5, r_max=0.9)
    >>> radii = abs(ring.eigenvalues)
    >>> bool(0.5 <= radii.min() and radii.max() <= 0.9), round(float((radii**2).mean()), 2)
    (True, 0.52)
    """
    if not 0 <= r_min < r_max <= 1:
        raise BadValue(f"a ring from radius {r_min:g} to {r_max:g}: expected 0 ≤ r_min < r_max ≤ 1")
    if not max_phase > 0:
        raise BadValue(f"max_phase is {max_phase:g}: expected a phase above 0, in radians")
    # 1 - random() is above 0, where random() may be 0: logarithms stay finite, but for a state of modulus 1.
    squared = np.minimum((1 - rng.random(states)) * (r_max**2 - r_min**2) + r_min**2, 1 - np.finfo(float).eps)
    phase = max_phase * (1 - rng.random(states))
    return Ring(np.log(-0.5 * np.log(squared)), np.log(phase), np.sqrt(1 - squared))


def lru_matrices(
    keep_in: NDArray[np.bool_], keep_out: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return the complex matrices B (inputs to states) and C (states to outputs) of an LRU layer under their masks.

    Real and imaginary part have standard deviation 1/√(2 fan_in) in B, and 1/√fan_in in C, of which only the real part
    of the result is used; fans are those of the live connections. Both keep a mean square of 1.

    Args:
        keep_in: boolean [states, inputs].
        keep_out: boolean [outputs, states].
        rng: where chance comes from.

    >>> B, C = lru_matrices(np.eye(3, 4, dtype=bool), np.zeros((2, 3), bool), np.random.default_rng(0))
    >>> int((B != 0).sum()), int((C != 0).sum())
    (3, 0)
    """
    return _complex(keep_in, 2.0, rng), _complex(keep_out, 1.0, rng)


def _complex(keep: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    std = 1 / np.sqrt(share * np.maximum(1, keep.sum(axis=1, keepdims=True)))
    return np.where(keep, std * (rng.standard_normal(keep.shape) + 1j * rng.standard_normal(keep.shape)), 0)
