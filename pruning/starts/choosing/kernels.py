"""Kernels that begin with one tap: a matrix in the centre, and zeros around it that are trained, too."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from pruning.errors import unknown
from pruning.ladder import round_half_up
from pruning.starts.centre import centre_of
from pruning.starts.weight import Weight

T = TypeVar("T", bound=np.generic)
Centre = Literal["denser", "even"]


def centre_count(weight: Weight, centre: Centre) -> int:
    """Return how many entries the centre tap of a kernel gets; all, where there is one tap.

    Args:
        weight: the masked kernel; d is its density, and k² its number of taps.
        centre: `even` for a centre as dense as the kernel, d; `denser` for min(d·k², 1, √d).

    Raises:
        UnknownName: another word.

    >>> weight = Weight("conv", np.arange(8 * 8 * 9).reshape(8, 8, 3, 3) % 4 == 0, "convolution")
    >>> centre_count(weight, "even"), centre_count(weight, "denser")
    (16, 32)
    """
    if centre not in get_args(Centre):
        raise unknown("centre", centre, get_args(Centre))
    kept, size = int(weight.keep.sum()), weight.outputs * weight.inputs
    if centre == "even":
        return round_half_up(Fraction(kept, weight.taps))
    # min(d·k², √d) in counts; for one tap, d is less than √d.
    return min(kept, size, round_half_up(Fraction(math.sqrt(weight.density)) * size))


def kept_for_centre(weight: Weight, needed: int, centre: Centre) -> int:
    """Return how many entries the kernel must keep for its centre tap to get `needed`.

    >>> weight = Weight("conv", np.zeros((8, 8, 3, 3), bool), "convolution")
    >>> kept_for_centre(weight, 16, "even"), kept_for_centre(weight, 32, "denser")
    (140, 140)
    """
    size, half = weight.outputs * weight.inputs, Fraction(1, 2)
    if centre == "even":
        return math.ceil(weight.taps * (needed - half))
    return max(needed, math.ceil(weight.keep.size * ((needed - half) / size) ** 2))


def at_centre(weight: Weight, matrix: NDArray[T], scheme: str) -> NDArray[T]:
    """Return the kernel that is a matrix [out, in] at its centre, and 0 elsewhere; the matrix, where there are no taps.

    Args:
        weight: the kernel.
        matrix: its centre.
        scheme: who asks, for the message.

    Raises:
        BadValue: a kernel without a centre.
    """
    if matrix.shape == weight.shape:
        return matrix
    kernel = np.zeros(weight.shape, matrix.dtype)
    kernel[centre_of(weight, scheme)] = matrix
    return kernel


def filled_up(keep: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask with free entries added at random until it keeps `count`; as it is, where it keeps that many.

    >>> int(filled_up(np.array([[True, False], [False, False]]), 3, np.random.default_rng(0)).sum())
    3
    """
    free = np.flatnonzero(~keep)
    filled = keep.reshape(-1).copy()
    filled[rng.choice(free, max(0, count - (keep.size - len(free))), replace=False, shuffle=False)] = True
    return filled.reshape(keep.shape)
