"""Which function a network applies to one of its values, whatever it is made of: told by its numbers on a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pruning.uses.functions import ACTIVATIONS, Numbers

_CLOSE = 2e-6  # of the largest number: constants of a network are float32

GRID: Numbers = np.linspace(-8.0, 8.0, 257)
GRID.setflags(write=False)

_KNOWN = tuple(name for name in ACTIVATIONS if name != "linear")

# Functions with numbers in their names: how those are read off the values at -8, -2, -1, 0 and 8.
_READ: Mapping[str, Callable[[Mapping[int, np.float64]], tuple[np.floating, ...]]] = {
    "leaky_relu": lambda at: (-at[-1],),
    "elu": lambda at: (at[-1] / np.expm1(-1.0),),
    "celu": lambda at: (-1 / np.log(at[-2] / at[-1] - 1),),
    "softplus": lambda at: (np.log(2) / at[0],),
    "hardtanh": lambda at: (at[-8], at[8]),
}


def recognized(curve: NDArray[np.generic]) -> str | None:
    """Return the name of a function; None where it is none of `ACTIVATIONS`.

    A multiple of a function has other gains, and is another function; with another sign it has the same, and is not.

    Args:
        curve: its values on `GRID`.

    >>> recognized(GRID / (1 + np.exp(-GRID))), recognized(np.where(GRID > 0, GRID, 0.2 * GRID)), recognized(3 * GRID)
    ('silu', 'leaky_relu(0.2)', 'linear')
    >>> recognized(1 - 1 / (1 + np.exp(-GRID))), recognized(np.sin(30 * GRID)), recognized(GRID**5)
    ('sigmoid', None, None)
    """
    values = np.asarray(curve, dtype=np.float64)
    if not np.isfinite(values).all():
        return None
    if is_line(values):
        return "linear"
    signed = (values, values[::-1], -values, -values[::-1])
    found = (name for each in signed for name in _KNOWN if _alike(each, _known(name)))
    return next(found, None) or next(filter(None, map(_with_numbers, signed)), None)


def is_line(curve: NDArray[np.generic]) -> bool:
    """Say whether a function is a line.

    >>> is_line(2 * GRID + 1), is_line(GRID**2)
    (True, False)
    """
    values = np.asarray(curve, dtype=np.float64)
    slope = (values[-1] - values[0]) / (GRID[-1] - GRID[0])
    return bool(np.isfinite(values).all()) and _alike(values, slope * GRID + values[len(GRID) // 2])


def _with_numbers(values: Numbers) -> str | None:
    at = {place: values[place == GRID][0] for place in (-8, -2, -1, 0, 8)}
    for name, read in _READ.items():
        with np.errstate(all="ignore"):
            numbers = tuple(float(f"{number:.6g}") for number in read(at))
            sensible = all(abs(number) < 1e6 for number in numbers) and max(numbers) > 1e-3
            if sensible and _alike(values, ACTIVATIONS[name](GRID, *numbers)):
                return f"{name}({', '.join(f'{number:g}' for number in numbers)})"
    return None


@cache
def _known(name: str) -> Numbers:
    # One by one: a network of rectifiers needs none of those that SciPy computes.
    return ACTIVATIONS[name](GRID)


def _alike(values: Numbers, known: Numbers) -> bool:
    largest = float(np.abs(known).max())
    return largest < np.inf and bool(np.abs(values - known).max() <= _CLOSE * max(1.0, largest))
