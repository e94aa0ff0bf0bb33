"""Gains: by how much the weights before a function must be larger, so that a signal keeps its size through it.

Means over a normal distribution are sums over a fine grid: the same numbers every time, to ten digits for smooth
functions, and to seven where a function has kinks at multiples of 1/1024.
"""

from __future__ import annotations

import math
from functools import cache
from numbers import Real
from typing import Literal, cast, get_args

import numpy as np

from pruning.errors import BadValue, unknown
from pruning.starts.activations import Activation, function_of, name_of
from pruning.starts.weight import Weight
from pruning.uses.functions import ACTIVATIONS, Numbers

__all__ = ["ACTIVATIONS", "Rule", "backward_gain", "gain", "gain_before", "input_gain", "kumar_gain", "optimal_sigma"]

Rule = Literal["forward", "backward", "kumar"]
"""What a gain keeps: the size of the signal, that of its gradient, or that of a signal near 0 (Kumar)."""

# How far the grid goes, in standard deviations, and the least number of its points in one of them.
_REACH, _FINE = 12, 4096


@cache
def gain(activation: Activation, sigma: float = 1.0) -> float:
    """Return the gain of an activation: std of a layer's weights is gain / sqrt(fan_in).

    gain² = σ² / E[f(σ z)²] for z ~ N(0, 1): the signal's standard deviation σ before the function is that of the next
    layer too.

    Args:
        activation: the name of a function in `ACTIVATIONS`, or any function.
        sigma: standard deviation of what goes into the function.

    Raises:
        UnknownName: a name that no function has.
        BadValue: a function without a gain.

    Source: VI3NR, variance informed initialization (Hewa Koneputugodage et al. 2025), forward condition.

    >>> round(gain("relu") ** 2, 6), round(gain("tanh"), 5), round(gain("leaky_relu(0.2)") ** 2, 6), gain("linear")
    (2.0, 1.59254, 1.923077, 1.0)
    """
    if activation == "linear":
        return 1.0
    return _one_over_root(_mean_squares(activation, sigma)[0] / sigma**2, activation)


@cache
def backward_gain(activation: Activation, sigma: float = 1.0) -> float:
    """Return the gain that keeps the size of gradients: std of a layer's weights is gain / sqrt(fan_out).

    gain² = 1 / E[f'(σ z)²] for z ~ N(0, 1).

    Args:
        activation: as for `gain`.
        sigma: as for `gain`.

    Raises:
        UnknownName: as for `gain`.
        BadValue: as for `gain`.

    Source: VI3NR (Hewa Koneputugodage et al. 2025), backward condition.

    >>> round(backward_gain("relu") ** 2, 6), round(backward_gain("tanh"), 4)
    (2.0, 1.4674)
    """
    if activation == "linear":
        return 1.0
    return _one_over_root(_mean_squares(activation, sigma)[1], activation)


def kumar_gain(activation: Activation) -> float:
    """Return the gain for signals near 0: gain² = 1 / (f'(0)² (1 + f(0)²)).

    Where the slopes on both sides of 0 differ, f'(0)² is the mean of their squares: 2 for a rectified linear unit.

    Args:
        activation: as for `gain`.

    Raises:
        UnknownName: as for `gain`.
        BadValue: a function that is flat at 0.

    Source: Kumar 2017 (arXiv 1704.08863).

    >>> round(kumar_gain("sigmoid"), 3), round(kumar_gain("tanh"), 6), round(kumar_gain("relu") ** 2, 6)
    (3.578, 1.0, 2.0)
    """
    step = 2.0**-12
    left2, left, at, right, right2 = function_of(activation)(step * np.arange(-2.0, 3.0))
    # One-sided differences of second order.
    slopes = np.array([3 * at - 4 * left + left2, 4 * right - right2 - 3 * at]) / (2 * step)
    squares = float(np.mean(slopes**2))
    if not squares > 1e-6:
        raise BadValue(
            f"activation {name_of(activation)} is flat at 0, so Kumar's rule has no gain for it: use rule=forward"
        )
    return _one_over_root(squares * (1 + float(at) ** 2), activation)


@cache
def optimal_sigma(activation: Activation) -> float:
    """Return the σ for which one gain keeps signals and gradients: σ² E[f'(σ z)²] = E[f(σ z)²]; 1 where any does.

    Args:
        activation: as for `gain`.

    Raises:
        UnknownName: as for `gain`.
        BadValue: a function that has no such σ between 1/64 and 64.

    Source: VI3NR (Hewa Koneputugodage et al. 2025).

    >>> round(optimal_sigma("gaussian"), 6), optimal_sigma("relu")
    (1.553774, 1.0)
    """
    from scipy import optimize  # it takes a third of a second to import

    def difference(exponent: float) -> float:
        values, slopes = _mean_squares(activation, 2.0**exponent)
        if not (0 < values < math.inf and 0 < slopes < math.inf):
            return math.nan
        return math.log(4.0 ** float(exponent) * slopes / values)

    exponents = np.arange(-6.0, 6.5, 0.5)
    found = np.array([difference(exponent) for exponent in exponents])
    if np.all(np.abs(found) < 1e-6):
        return 1.0
    changes = np.flatnonzero((found[:-1] * found[1:] < 0) & (np.minimum(np.abs(found[:-1]), np.abs(found[1:])) > 1e-6))
    if not len(changes):
        raise BadValue(
            f"activation {name_of(activation)} has no sigma between 1/64 and 64 that keeps both signals and gradients: "
            "give one, as --set init_params.sigma=1"
        )
    nearest = min(changes, key=lambda index: abs(exponents[index] + 0.25))
    return 2.0 ** float(
        cast(float, optimize.brentq(difference, exponents[nearest], exponents[nearest + 1], xtol=1e-10))
    )


def input_gain(mean: float, std: float, sigma: float = 1.0) -> float:
    """Return the gain of a layer that sees the data: gain² = σ² / (mean² + std²).

    Args:
        mean: of the inputs.
        std: of the inputs.
        sigma: standard deviation of the layer's results.

    Raises:
        BadValue: inputs that are all 0.

    Source: VI3NR (Hewa Koneputugodage et al. 2025).

    >>> input_gain(0.0, 1.0), input_gain(0.6, 0.8, sigma=2.0)
    (1.0, 2.0)
    """
    size = math.hypot(mean, std)
    if not size > 0:
        raise BadValue("inputs of mean 0 and standard deviation 0: no weights make a signal of them")
    return sigma / size


def gain_before(
    weight: Weight,
    given: float | None,
    activation: Activation | None,
    rule: Rule = "forward",
    sigma: float | Literal["optimal"] = 1.0,
) -> float:
    """Return the gain of a weight: the one that is given, or that of the activation its result goes through.

    Args:
        weight: the weight.
        given: a gain that the caller chose, or None.
        activation: the name of an activation that the caller chose, or None for the one that was found.
        rule: what the gain keeps.
        sigma: standard deviation of what goes into the function, or `optimal`; Kumar's rule looks at 0 alone.

    Raises:
        BadValue: the activation was not found, and nobody named one; or it has no such gain.
        UnknownName: a function or a rule that there is none of.
    """
    if rule not in get_args(Rule):
        raise unknown("rule", rule, get_args(Rule))
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
            raise BadValue(f"gain must be a number, as 1.4, not {given!r}")
        return float(given)
    found = activation if activation is not None else weight.activation
    if found is None:
        raise BadValue(
            f"which function the result of {weight} goes through was not found: name it, as "
            "--set init_params.activation=relu, or give a gain, as --set init_params.gain=1.4"
        )
    if rule == "kumar":
        return kumar_gain(found)
    deviation = optimal_sigma(found) if sigma == "optimal" else _positive(sigma)
    return gain(found, deviation) if rule == "forward" else backward_gain(found, deviation)


def _positive(sigma: float) -> float:
    if isinstance(sigma, str) or not 0 < sigma < math.inf:
        raise BadValue(f"sigma {sigma!r}: expected a positive number, or optimal")
    return float(sigma)


@cache
def _mean_squares(activation: Activation, sigma: float) -> tuple[float, float]:
    """Return E[f(σ z)²] and E[f'(σ z)²] for z ~ N(0, 1), by the midpoint rule.

    Cells have a power of two as their width: kinks and jumps of the usual functions lie between them, not in them. The
    slope is taken inside a cell, as gradients are: a jump has none.
    """
    width = 2.0 ** math.floor(math.log2(sigma / _FINE))
    count = math.ceil(_REACH * sigma / width)
    points = ((np.arange(-count, count) + 0.5) * width).astype(np.float64)
    density = np.exp(-((points / sigma) ** 2) / 2) * (width / sigma / math.sqrt(2 * math.pi))
    function = function_of(activation)
    with np.errstate(all="ignore"):
        values = function(points)
        slopes = (function(points + width / 4) - function(points - width / 4)) * (2 / width)
        return _total(values**2 * density), _total(slopes**2 * density)


def _total(parts: Numbers) -> float:
    """Return a sum over the grid; infinite where its ends hold a share of it: it would grow with the grid."""
    total, edge = float(np.sum(parts)), len(parts) // 12
    ends = float(np.sum(parts[:edge]) + np.sum(parts[-edge:]))
    return math.inf if ends > 1e-6 * total else total


def _one_over_root(square: float, activation: Activation) -> float:
    if not 1e-300 < square < math.inf:
        raise BadValue(f"activation {name_of(activation)} has no gain: its mean square is {square:.3g}")
    return 1 / math.sqrt(square)
