"""Gains: by how much the weights before a function must be larger, so that a signal keeps its size through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pruning.errors import BadValue, unknown
from pruning.starts.weight import Weight

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

ACTIVATIONS: Mapping[str, Function] = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z * special.expit(z),
    "sin": np.sin,
    "gaussian": lambda z: np.exp(-(z**2) / 2),
}
"""Functions element by element, by the names that settings and traces use."""

# Beyond eight standard deviations a normal density adds less than rounding; kinks at 0 fall on a point of the grid.
_GRID = np.linspace(-8.0, 8.0, 160_001)
_DENSITY = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi)


def mean_over_normal(values: NDArray[np.float64]) -> float:
    """Return E[f(z)] for a standard normal z, by the trapezoid rule; `values` are f on the grid."""
    return float(np.trapezoid(values * _DENSITY, _GRID))


@cache
def gain(activation: str, sigma: float = 1.0) -> float:
    """Return the gain of an activation: std of a layer's weights is gain / sqrt(fan_in).

    gain² = σ² / E[f(σ z)²] for z ~ N(0, 1): the signal's standard deviation σ before the function is that of the next
    layer too.

    Args:
        activation: the name of a function in `ACTIVATIONS`.
        sigma: standard deviation of what goes into the function.

    Raises:
        UnknownName: a function without a gain.

    Source: VI3NR, variance informed initialization (Hewa Koneputugodage et al. 2025), forward condition.

    >>> round(gain("relu") ** 2, 6), round(gain("tanh"), 5), gain("linear")
    (2.0, 1.59254, 1.0)
    """
    if activation == "linear":
        return 1.0
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    return sigma / math.sqrt(mean_over_normal(ACTIVATIONS[activation](sigma * _GRID) ** 2))


def gain_before(weight: Weight, given: float | None, activation: str | None) -> float:
    """Return the gain of a weight: the one that is given, or that of the activation its result goes through.

    Args:
        weight: the weight.
        given: a gain that the caller chose, or None.
        activation: the name of an activation that the caller chose, or None for the one that was found.

    Raises:
        BadValue: the activation was not found, and nobody named one.
        UnknownName: an activation without a gain.
    """
    if given is not None:
        return given
    found = activation if activation is not None else weight.activation
    if found is None:
        raise BadValue(
            f"which function the result of {weight} goes through was not found: name it, as "
            "--set init_params.activation=relu, or give a gain, as --set init_params.gain=1.4"
        )
    return gain(found)
