"""Layers that never stretch a difference (1-Lipschitz), and how much of a signal they lose at the start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.starts.weight import Array

Floats = NDArray[np.float64]

# The papers' own, so that an input without weights is not divided by 0.
_EPSILON = 1e-6


def overlaps(kernel: Array) -> Iterator[Floats]:
    """Yield, for each shift of a kernel against itself, Σ over outputs and taps of K[o, i, t] K[o, j, t + shift].

    Args:
        kernel: [out, in, *taps].

    Yields:
        [in, in]; no shift first. For a matrix that is all: WᵀW.

    >>> [each.tolist() for each in overlaps(np.array([[[1.0, 2.0]]]))]
    [[[5.0]], [[2.0]], [[2.0]]]
    """
    sizes = kernel.shape[2:]
    # Shift 0 first, then those on either side of it.
    ranges = [sorted(range(1 - size, size), key=abs) for size in sizes]
    for shift in sorted(itertools.product(*ranges), key=lambda by: sum(map(abs, by))):
        here = tuple(slice(max(0, -by), size - max(0, by)) for by, size in zip(shift, sizes, strict=True))
        there = tuple(slice(max(0, by), size + min(0, by)) for by, size in zip(shift, sizes, strict=True))
        first, second = (_by_input(kernel[(slice(None), slice(None), *part)]) for part in (here, there))
        yield first @ second.T


def aol_scales(kernel: Array) -> Floats:
    """Return t [in]: a kernel whose inputs are scaled by it is 1-Lipschitz (almost-orthogonal layer).

    t_i = (Σ_j |WᵀW|_ij + 1e-6)^(-1/2); a convolution sums over its shifts too.

    Args:
        kernel: [out, in, *taps], masked.

    Source: Prach & Lampert 2022, Almost-orthogonal layers (arXiv 2208.03160).

    >>> aol_scales(np.eye(2) * 4).round(3).tolist()
    [0.25, 0.25]
    """
    return 1 / np.sqrt(_absolute_sums(kernel) + _EPSILON)


def sll_scales(kernel: Array) -> Floats:
    """Return T [out]: x - 2 Wᵀ diag(T) relu(W x + b) is 1-Lipschitz (SDP-based layer), with q = 1 for every unit.

    T_i = 1 / Σ_j |W Wᵀ|_ij; a convolution sums over its shifts too; 0 for a unit without weights.

    Args:
        kernel: [out, in, *taps], masked.

    Source: Araujo et al. 2023, A unified algebraic perspective on Lipschitz neural networks (arXiv 2303.03169).

    >>> sll_scales(np.eye(2) * 4).tolist()
    [0.0625, 0.0625]
    """
    sums = _absolute_sums(kernel.swapaxes(0, 1))
    return np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)


@dataclass(frozen=True)
class Decay:
    """How much of a signal's mean square a layer hands on.

    Attributes:
        gain: ‖W‖_F² for each live input: 1 for an isometry, and the signal shrinks by it at every layer.
        expected: the same for a Gaussian start under this mask, by theory.
    """

    gain: float
    expected: float


def decay(values: Array, keep: NDArray[np.bool_]) -> Decay:
    """Return how much a scaled kernel shrinks white noise, and what theory says of a Gaussian start under its mask.

    Theory takes each sum of products by its mean size: for inputs that share m live outputs, √(2 m / π); exactly
    2 Γ((m + 1) / 2) / (√π Γ(m / 2)). Without a mask that is 1 / (1 + √(2 n / π) (n - 1) / n) for n × n, large n. Where
    an input has a few weights only, theory is up to a fifth too high. For `sll`, give both arrays with outputs and
    inputs swapped.

    Args:
        values: [out, in, *taps], what `aol` draws.
        keep: of the same shape.

    Source: Juston et al. 2025, 1-Lipschitz network initialization: a decay problem.

    >>> decay(np.eye(3), np.eye(3, dtype=bool))
    Decay(gain=1.0, expected=1.0)
    """
    own = keep.sum(axis=(0, *range(2, keep.ndim)))
    live = own > 0
    if not live.any():
        return Decay(0.0, 0.0)
    gain = float((values.astype(np.float64) ** 2).sum() / live.sum())
    others = np.zeros(len(live))
    for shift, shared in enumerate(overlaps(keep.astype(np.float64))):
        sizes = _mean_size(shared)
        if shift == 0:
            np.fill_diagonal(sizes, 0)
        others += sizes.sum(axis=1)
    return Decay(gain, float((own[live] / (own[live] + others[live])).mean()))


def _mean_size(terms: Floats) -> Floats:
    """Return E|Σ x_k y_k| over m terms, x and y standard normal."""
    from scipy.special import gammaln

    log = gammaln((terms + 1) / 2) - gammaln(np.maximum(terms, 1) / 2)
    return np.where(terms > 0, 2 / math.sqrt(math.pi) * np.exp(log), 0.0)


def _absolute_sums(kernel: Array) -> Floats:
    sums = np.zeros(kernel.shape[1])
    for shifted in overlaps(np.asarray(kernel, np.float64)):
        sums += np.abs(shifted).sum(axis=1)
    return sums


def _by_input(kernel: Array) -> Array:
    return kernel.swapaxes(0, 1).reshape(kernel.shape[1], -1)
