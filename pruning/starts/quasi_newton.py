"""Steps of a quasi-Newton method with an exact line search, for objectives that are polynomials along a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruning.starts.weight import Array


def direction(gradient: Array, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """Return the direction of limited-memory BFGS; the steepest descent where there are no pairs.

    Args:
        gradient: at the present point.
        pairs: (step, change of the gradient) of the last steps, the oldest first; their products are positive.

    Source: Nocedal and Wright 2006, Numerical optimization, algorithm 7.4.

    >>> direction(np.array([2.0, 8.0]), [(np.array([1.0, 0.0]), np.array([2.0, 0.0]))]).tolist()
    [-1.0, -4.0]
    """
    turned = gradient.copy()
    shares: list[Array] = []
    for step, change in reversed(pairs):
        shares.append(step @ turned / (step @ change))
        turned -= shares[-1] * change
    if pairs:
        step, change = pairs[-1]
        turned *= step @ change / (change @ change)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        turned += (share - change @ turned / (step @ change)) * step
    return -turned


def lowest(polynomial: NDArray[np.float64]) -> float:
    """Return where above 0 a polynomial is lowest, or 0 where nothing above is lower than its value at 0.

    Args:
        polynomial: its coefficients, that of the highest power first.

    >>> round(lowest(np.array([1.0, -4.0, 5.0])), 6), lowest(np.array([1.0, 0.0, 1.0]))  # (t - 2)² + 1, t² + 1
    (2.0, 0.0)
    """
    flat = np.roots(np.polyder(polynomial))
    # A double root comes with a small imaginary part; a point that is no minimum is not the lowest.
    places = np.append(flat.real[(abs(flat.imag) <= 1e-6 * (1 + abs(flat.real))) & (flat.real > 0)], 0.0)
    return float(places[np.argmin(np.polyval(polynomial, places))])
