"""The descent of the isometry repair: quasi-Newton steps with an exact line search, over live entries only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruning.starts.quasi_newton import direction, lowest
from pruning.starts.weight import Array

# Steps that a direction remembers.
_MEMORY = 10
# Progress is measured over this many steps.
_PATIENCE = 20
# A sum of products is updated from step to step; it is computed afresh after as many, before rounding adds up.
_REFRESH = 20


@dataclass(frozen=True)
class Descent:
    """What is minimized, and when that ends; see the settings of `isometry`.

    Attributes:
        spread: the price of Σw⁴.
        least: the effective density at which it ends.
        stop: the share of the way from the start to the floor that may be left.
        progress: it has converged where 20 steps lower the objective's root by less than this share of it.
        steps: the most that it takes.
        floor: the smallest penalty that the mask allows.
    """

    spread: float
    least: float
    stop: float
    progress: float
    steps: int
    floor: float


@dataclass(frozen=True, eq=False)
class Descended:
    """Where the descent ended.

    Attributes:
        values: [rows, columns]; 0 where the mask removes.
        steps: how many it took.
        ended: why it ended.
    """

    values: Array
    steps: int
    ended: str


def descend(values: Array, keep: NDArray[np.bool_], ask: Descent) -> Descended:
    """Minimize ‖WWᵀ - I‖² + spread · Σw⁴ over the live entries of W.

    Rows and columns without live entries are taken out, and of what is left the smaller Gram matrix is computed: both
    change the squared penalty by a constant only.

    Args:
        values: [rows, columns], floats; of their dtype are all large sums.
        keep: which of them are live; at least one.
        ask: the price and the ends.
    """
    live = np.ix_(keep.any(axis=1), keep.any(axis=0))
    inside, within = np.where(keep, values, 0)[live], keep[live]
    taller = inside.shape[0] > inside.shape[1]
    if taller:
        inside, within = inside.T, within.T
    missing = min(keep.shape) - len(inside)
    found, steps, ended = _minimized(np.ascontiguousarray(inside), np.flatnonzero(within), missing, ask)
    whole = np.zeros(keep.shape, values.dtype)
    whole[live] = found.T if taller else found
    return Descended(whole, steps, ended)


def _minimized(matrix: Array, places: NDArray[np.intp], missing: int, ask: Descent) -> tuple[Array, int, str]:
    """Return the minimizing matrix; `places` are its live entries, `missing` is added to the squared penalty."""
    live, ahead = matrix.reshape(-1)[places], np.zeros_like(matrix)
    error = _error(matrix)
    gradient = _gradient(error, matrix, places, ask.spread)
    near = ask.floor + ask.stop * max(0.0, _scaled_penalty(error, missing) - ask.floor)
    pairs: deque[tuple[Array, Array]] = deque(maxlen=_MEMORY)
    roots: deque[float] = deque(maxlen=_PATIENCE)
    for step in range(ask.steps):
        if _scaled_penalty(error, missing) <= near:
            return matrix, step, "near the floor"
        root = math.sqrt(_dot(error, error) + ask.spread * _dot(live**2, live**2))
        if len(roots) == _PATIENCE and roots[0] - root <= ask.progress * root:
            return matrix, step, "no further progress"
        roots.append(root)
        way = direction(gradient, pairs)
        if way @ gradient >= 0:  # rounding, near the minimum
            pairs.clear()
            way = -gradient
        ahead.reshape(-1)[places] = way
        line = _Line.along(error, matrix, ahead)
        moments = _moments(live, way)
        length = lowest(line.squared() + ask.spread * moments.fourth)
        if length == 0:
            return matrix, step, "no further progress"
        allowed = moments.longest(length, ask.least * len(live))
        live = live + allowed * way
        matrix.reshape(-1)[places] = live
        if allowed < length:
            return matrix, step + (allowed > 0), "at the least effective density"
        error = _error(matrix) if step % _REFRESH == _REFRESH - 1 else line.at(length)
        before, gradient = gradient, _gradient(error, matrix, places, ask.spread)
        moved, change = length * way, gradient - before
        if moved @ change > np.finfo(live.dtype).eps * math.sqrt(_dot(moved, moved) * _dot(change, change)):
            pairs.append((moved, change))
    return matrix, ask.steps, "after all steps"


def _scaled_penalty(error: Array, missing: int) -> float:
    """Return the penalty that the best multiple of the matrix has."""
    trace, square = float(np.trace(error)), _dot(error, error)
    side = len(error)
    return math.sqrt(max(0.0, missing + side - (trace + side) ** 2 / (square + 2 * trace + side)))


def _error(matrix: Array) -> Array:
    error = matrix @ matrix.T
    error[np.diag_indices(len(error))] -= 1
    return error


def _gradient(error: Array, matrix: Array, places: NDArray[np.intp], spread: float) -> Array:
    """Return a quarter of the objective's gradient, over the live entries."""
    live = matrix.reshape(-1)[places]
    return (error @ matrix).reshape(-1)[places] + live.dtype.type(spread) * live**3


def _dot(one: Array, other: Array) -> float:
    return float(np.vdot(one, other))


class _Line(NamedTuple):
    """The error along a line, E + t · first + t² · second."""

    error: Array
    first: Array
    second: Array

    @classmethod
    def along(cls, error: Array, matrix: Array, ahead: Array) -> _Line:
        crossed = matrix @ ahead.T
        return cls(error, crossed + crossed.T, ahead @ ahead.T)

    def squared(self) -> NDArray[np.float64]:
        """Return the coefficients of ‖error‖², that of t⁴ first."""
        zero, one, two = self
        middle = _dot(one, one) + 2 * _dot(zero, two)
        return np.array([_dot(two, two), 2 * _dot(one, two), middle, 2 * _dot(zero, one), _dot(zero, zero)])

    def at(self, length: float) -> Array:
        return self.error + self.error.dtype.type(length) * (self.first + self.error.dtype.type(length) * self.second)


class _Moments(NamedTuple):
    """Σw² and Σw⁴ along a line, as polynomials."""

    second: NDArray[np.float64]
    fourth: NDArray[np.float64]

    def longest(self, length: float, least: float) -> float:
        """Return how far of `length` one may go until (Σw²)² / Σw⁴ is `least`."""
        if self._participants(length) >= least:
            return length
        low, high = 0.0, length
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._participants(middle) >= least else (low, middle)
        return low

    def _participants(self, length: float) -> float:
        return float(np.polyval(self.second, length) ** 2 / np.polyval(self.fourth, length))


def _moments(live: Array, way: Array) -> _Moments:
    squares, both, ways = live**2, live * way, way**2
    second = np.array([_dot(way, way), 2 * _dot(live, way), _dot(live, live)])
    fourth = [_dot(ways, ways), 4 * _dot(both, ways), 6 * _dot(both, both), 4 * _dot(squares, both)]
    return _Moments(second, np.array([*fourth, _dot(squares, squares)]))
