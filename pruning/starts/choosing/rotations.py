"""Sparse matrices with orthonormal rows or columns: products of rotations of two coordinates each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Columns:
    """A matrix [rows, columns] with orthonormal rows, held column by column and turned in place.

    Attributes:
        values: [columns, rows].
        live: [columns, rows]: where rotations by angles without meaning leave something other than 0.
    """

    values: Float
    live: Bool

    @classmethod
    def partial_permutation(cls, rows: int, columns: int, rng: np.random.Generator) -> Columns:
        """Return one ±1 in every row, each in another column; `rows` is at most `columns`."""
        values = np.zeros((columns, rows))
        values[rng.permutation(columns)[:rows], np.arange(rows)] = rng.choice([-1.0, 1.0], rows)
        return cls(values, values != 0)

    @property
    def count(self) -> int:
        """How many entries are live."""
        return int(np.count_nonzero(self.live))

    def added(self, one: int, other: int) -> int:
        """Return how many more entries are live once these two columns have been turned."""
        # Each row that has an entry in one of the two gets one in both.
        return int(np.count_nonzero(self.live[one] != self.live[other]))

    def turn(self, one: int, other: int, angle: float) -> None:
        """Rotate two columns into each other, in place."""
        cos, sin = math.cos(angle), math.sin(angle)
        first, second = self.values[one], self.values[other].copy()
        self.values[other] = cos * second - sin * first
        self.values[one] = cos * first + sin * second
        self.live[one] |= self.live[other]
        self.live[other] = self.live[one]


def random_turns(columns: int, rng: np.random.Generator) -> Iterator[tuple[int, int, float]]:
    """Yield without end two different columns and an angle, all uniform; `columns` is 2 or more."""
    while True:
        one = rng.integers(columns, size=columns)
        other = (one + rng.integers(1, columns, size=columns)) % columns
        yield from zip(one.tolist(), other.tolist(), rng.uniform(0, 2 * math.pi, columns).tolist(), strict=True)


def fewest(rows: int, columns: int, irreducible: bool = False) -> int:
    """Return how many entries the sparsest matrix has that `sparse_orthogonal` makes.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        irreducible: whether no order of rows and columns may split it into two blocks. For n rows and columns 4n − 4
            is the known bound.

    >>> fewest(100, 100), fewest(100, 100, irreducible=True), fewest(10, 100, irreducible=True)
    (100, 396, 118)
    """
    short, long = sorted((rows, columns))
    if not irreducible:
        return short
    return long if short == 1 else 4 * short - 4 + max(0, long - 2 * short + 2)


def sparse_orthogonal(
    rows: int, columns: int, most: int, rng: np.random.Generator, irreducible: bool = False
) -> tuple[Float, Bool]:
    """Return a random matrix with orthonormal rows (columns, where there are more rows) and where it is not 0.

    Random pairs of columns (rows) of a signed partial permutation are rotated by random angles; the first rotation that
    would give more entries than asked for is not done any more.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        most: how many entries it may have; at least `fewest(rows, columns, irreducible)`.
        rng: for everything random.
        irreducible: whether to begin with the sparsest matrix that no order of rows and columns splits into two blocks.

    Returns:
        Values and live entries [rows, columns], float64 and boolean.

    Source: Nowak et al. 2024, exact orthogonal initialization (arXiv 2406.01755).

    >>> values, live = sparse_orthogonal(3, 4, 8, np.random.default_rng(0))
    >>> bool(abs(values @ values.T - np.eye(3)).max() < 1e-15), int(live.sum()) <= 8
    (True, True)
    """
    short, long = sorted((rows, columns))
    made = Columns.partial_permutation(short, long, rng)
    if irreducible:
        _connect(made, rng)
    count = made.count
    if long > 1:
        for one, other, angle in random_turns(long, rng):
            more = made.added(one, other)
            if count == most or count + more > most:
                break
            made.turn(one, other, angle)
            count += more
    values, live = (made.values, made.live) if rows > columns else (made.values.T, made.live.T)
    return np.ascontiguousarray(values), np.ascontiguousarray(live)


def expected_densities(columns: int, rotations: int) -> Float:
    """Return the expected density after 0 to `rotations` random rotations: [rotations + 1].

    A row of k entries has k + 1 after a rotation with probability 2k(n − k) / (n(n − 1)), whatever the other rows do.

    >>> expected_densities(100, 249)[[156, 249]].round(4).tolist()
    [0.1689, 0.4915]
    """
    size = np.arange(columns + 1)
    grows = 2 * size * (columns - size) / max(1, columns * (columns - 1))
    chance = np.zeros(columns + 1)
    chance[1] = 1.0
    densities = [1 / columns]
    for _ in range(rotations):
        moved = chance * grows
        chance -= moved
        chance[1:] += moved[:-1]
        densities.append(float(chance @ size) / columns)
    return np.array(densities)


def _connect(made: Columns, rng: np.random.Generator) -> None:
    """Rotate a partial permutation into the sparsest matrix that does not split into two blocks.

    Two layers of rotations of neighbours, like bricks in a wall, join n rows with 4n − 4 entries. Where there are more
    columns than rows, a spare column cuts the wall in two that share a row, at no cost; one that is left over gets one
    entry.
    """
    rows = made.values.shape[1]
    at = rng.permutation(rows)  # the order of rows along the wall
    held = np.argmax(made.live, axis=0)[at]  # the column of each
    spare = rng.permutation(np.flatnonzero(~made.live.any(axis=1)))
    inner = rng.permutation(np.arange(1, rows - 1))[: len(spare)]
    cuts = dict(zip(inner.tolist(), spare.tolist(), strict=False))
    turns: list[tuple[int, int]] = [(int(held[rng.integers(rows)]), extra) for extra in spare[len(inner) :].tolist()]
    turns += [(int(held[row]), extra) for row, extra in cuts.items()]
    walls: list[list[int]] = [[]]
    for row, column in enumerate(held.tolist()):
        walls[-1].append(column)
        if row in cuts:
            walls.append([cuts[row]])
    for wall in walls:
        pairs = list(itertools.pairwise(wall))
        turns += pairs[::2] + pairs[1::2]
    for (one, other), angle in zip(turns, rng.uniform(0, 2 * math.pi, len(turns)), strict=True):
        made.turn(one, other, float(angle))
