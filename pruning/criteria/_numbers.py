"""Weights and gradients as exact numbers: real ones in float64, complex ones in complex128.

The gradient of a complex weight is ∂L/∂Re w + i ∂L/∂Im w, as autograd gives it: a weight is two real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def exact(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Return an array in float64, or complex128: a square of a square is beyond float32 long before that."""
    array = np.asarray(arrays[name])
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def size(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """Return absolute values in float64."""
    return np.abs(exact(arrays, name))


def change(slopes: NDArray[Any], steps: NDArray[Any]) -> NDArray[np.float64]:
    """Return how much a function changes along steps, to first order: Re(ḡ·δ).

    >>> change(np.array([3 - 4j]), np.array([1 + 1j])).tolist()
    [-1.0]
    """
    return np.real(np.conj(slopes) * steps)


def weighted_squares(weights: NDArray[Any], steps: NDArray[Any]) -> NDArray[np.float64]:
    """Return F·δ², where F of a complex step weights the squares of its two halves, as halves of one number.

    >>> weighted_squares(np.array([2 + 10j]), np.array([3 + 1j])).tolist()
    [28.0]
    """
    if not np.iscomplexobj(steps):
        return np.real(weights) * steps**2
    return np.real(weights) * np.real(steps) ** 2 + np.imag(weights) * np.imag(steps) ** 2
