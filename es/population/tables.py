"""The structure of a mask that a matrix product can use. Host arrays only, read while a function is traced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bucket:
    """Rows of a weight matrix with about the same number of inputs, each row's inputs side by side.

    Attributes:
        columns: [rows, K], the input that each place reads; I (one past the last) in padding.
        slots: [rows, K], the column of the population that holds the weight; -1 in padding.
    """

    columns: NDArray[np.int32]
    slots: NDArray[np.int32]


@dataclass(frozen=True)
class FanIn:
    """A weight matrix [O, I] row by row, without its removed entries.

    Attributes:
        buckets: together all rows.
        back: [O], where among the buckets' rows each row of the matrix is; None when they are in order.
    """

    buckets: tuple[Bucket, ...]
    back: NDArray[np.int32] | None

    @property
    def places(self) -> int:
        """Number of weights with padding."""
        return sum(bucket.columns.size for bucket in self.buckets)


def fan_in(slots: NDArray[np.int32], most_buckets: int = 4) -> FanIn:
    """Return the rows of a matrix of slots [O, I] as dense rows of inputs.

    Rows keep their order, in one bucket, unless sorting them saves a third of the places: putting results back in order
    costs a pass over them.

    >>> tables = fan_in(np.array([[0, -1, 1], [-1, 2, -1]]))
    >>> tables.buckets[0].columns.tolist(), tables.buckets[0].slots.tolist()
    ([[0, 2], [1, 3]], [[0, 1], [2, -1]])
    """
    counts = (slots >= 0).sum(1)
    order = np.argsort(-counts, kind="stable")
    edges = _edges(counts[order], most_buckets)
    sorted_places = sum((end - begin) * max(int(counts[order[begin]]), 1) for begin, end in edges)
    if sorted_places * 3 > 2 * len(counts) * max(int(counts.max(initial=0)), 1):
        return FanIn((_bucket(slots, np.arange(len(counts))),), None)
    back = np.empty(len(counts), np.int32)
    back[order] = np.arange(len(counts))
    return FanIn(tuple(_bucket(slots, order[begin:end]) for begin, end in edges), back)


def _edges(counts: NDArray[np.intp], most: int) -> list[tuple[int, int]]:
    """Cut rows in order of falling counts into at most `most` runs with little padding, among 16 possible cuts."""
    cuts = sorted({round(len(counts) * i / 16) for i in range(17)})
    best: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}
    for _ in range(most):
        found = dict(best)
        for begin, (cost, edges) in best.items():
            for end in cuts:
                if end > begin:
                    total = cost + (end - begin) * max(int(counts[begin]), 1)
                    if end not in found or total < found[end][0]:
                        found[end] = (total, [*edges, (begin, end)])
        best = found
    return best[len(counts)][1]


def _bucket(slots: NDArray[np.int32], rows: NDArray[np.intp]) -> Bucket:
    part = slots[rows]
    counts = (part >= 0).sum(1)
    width = max(int(counts.max(initial=0)), 1)
    row, column = np.nonzero(part >= 0)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.full((len(rows), width), slots.shape[1], np.int32)
    compact = np.full((len(rows), width), -1, np.int32)
    columns[row, place] = column
    compact[row, place] = part[row, column]
    return Bucket(columns, compact)


@dataclass(frozen=True)
class Panels:
    """A weight matrix [O, I] cut into panels of rows; a panel keeps the inputs that any of its rows reads.

    Attributes:
        columns: [panels, U], inputs; padding repeats one that the panel reads anyway.
        slots: [panels, rows, U], columns of the population; -1 for removed and in padding.
    """

    columns: NDArray[np.int32]
    slots: NDArray[np.int32]


def panels(slots: NDArray[np.int32], rows: int) -> Panels:
    """Return a matrix of slots [O, I] in panels of `rows` rows; the last one is filled up with empty rows.

    >>> panels(np.array([[0, -1, 1], [-1, -1, 2]]), 2).columns.tolist()
    [[0, 2]]
    """
    missing = -len(slots) % rows
    blocks = np.concatenate([slots, np.full((missing, slots.shape[1]), -1, slots.dtype)]).reshape(
        -1, rows, slots.shape[1]
    )
    used = [np.flatnonzero((block >= 0).any(0)) for block in blocks]
    width = max(max(len(columns) for columns in used), 1)
    columns = np.zeros((len(blocks), width), np.int32)
    compact = np.full((len(blocks), rows, width), -1, np.int32)
    for panel, (block, live) in enumerate(zip(blocks, used, strict=True)):
        columns[panel, : len(live)] = live
        columns[panel, len(live) :] = live[0] if len(live) else 0
        compact[panel, :, : len(live)] = block[:, live]
    return Panels(columns, compact)
