"""Behaviour: what an untrained network, its loss and its metric give on the first batches, in a few numbers.

No reading of code sees all that a result depends on (a helper in an installed package, a file that a loss reads). So a
run also stores what its pieces did before anything was trained. Numbers are compared within the rounding of other
machines: a replicate may be added where the processor is another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Float32 sums on two processors differ by far less, two activation functions by far more.
_CLOSE = 1e-3

Behaviour = Mapping[str, Sequence[float | None]]


def described(arrays: Iterable[NDArray[Any]]) -> list[float]:
    """Return a few numbers that tell arrays apart: their norm, and their products with two fixed random directions.

    >>> described([np.zeros(3)]), described([np.ones(2), np.ones(2)])[0]
    ([0.0, 0.0, 0.0], 2.0)
    """
    squares, products = 0.0, np.zeros(2)
    rng = np.random.Generator(np.random.PCG64(0))
    for array in arrays:
        values = np.asarray(array, np.float64).reshape(-1)
        squares += float(values @ values)
        for index in range(2):
            products[index] += float(rng.standard_normal(len(values), np.float32).astype(np.float64) @ values)
    return [math.sqrt(squares) if squares >= 0 else squares, *products.tolist()]


def agree(one: Behaviour, other: Behaviour) -> bool:
    """Say whether two descriptions are of the same behaviour, up to the rounding of another machine.

    >>> agree({"loss": [1.0]}, {"loss": [1.00001]}), agree({"loss": [1.0]}, {"loss": [1.1]}), agree({}, {"loss": [1.0]})
    (True, False, False)
    """
    if one.keys() != other.keys():
        return False
    return all(_alike(one[name], other[name]) for name in one)


def _alike(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    if len(one) != len(other):
        return False
    # A product with a random direction is as large as the norm, give or take: one scale for the numbers of a thing.
    scale = max((abs(value) for value in (*one, *other) if value is not None and math.isfinite(value)), default=0.0)
    return all(_same(a, b, _CLOSE * scale + 1e-9) for a, b in zip(one, other, strict=True))


def _same(a: float | None, b: float | None, tolerance: float) -> bool:
    finite = [value is not None and math.isfinite(value) for value in (a, b)]
    if not all(finite):
        return not any(finite)
    assert a is not None
    assert b is not None
    return abs(a - b) <= tolerance
