"""Panels: a few rows of a sparse matrix that share the union of their columns, so that tensor cores can multiply them.

    rows 4 and 9 keep columns {0, 2} and {2, 7}  ─▶  a panel of two rows × columns {0, 2, 7}, cut into chunks

A slot of a panel that no weight fills holds position -1. Each kept weight fills exactly one slot, so gradients of the
values are stored without atomic additions, always in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.sparse.plans.plan import Plan, Rows

# Columns that one step of a product takes: what keeps the pipeline of loads full without padding short panels much.
CHUNK = 32


@dataclass(frozen=True)
class Panels:
    """A matrix cut into panels; the panel with the most columns comes first, so that none is left over at the end.

    Attributes:
        height: rows of a panel.
        rows: row of the matrix that each row of each panel is [panels · height], int32; -1 below the last.
        starts: first slot of each panel and the number of slots [panels + 1], int64, multiples of `CHUNK`; a panel
            of empty rows begins where it ends.
        columns: column of each slot [slots], int32; -1 where a chunk is not full.
        owners: panel of each chunk [slots / CHUNK], int32.
        positions: which of the values stands where [chunk, height, CHUNK] in one dimension, int32; -1 is none.
    """

    height: int
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    owners: NDArray[np.int32]
    positions: NDArray[np.int32]


def panels(plan: Plan, height: int) -> Panels:
    """Return the panels of a matrix.

    Rows that keep about equally many weights share a panel: the union of random columns grows less than linearly with
    the rows' density, so that fewest slots are made where densities are not mixed.

    >>> panels(Plan.of([[1, 0, 0], [0, 0, 0], [1, 0, 1]]), height=2).rows.tolist()
    [2, 0, 1, -1]
    """
    return _panels(plan.mask, plan.rows, np.arange(plan.kept, dtype=np.int32), height)


def transposed_panels(plan: Plan, height: int) -> Panels:
    """Return the panels of the transpose; their positions point into the same values."""
    return _panels(np.ascontiguousarray(plan.mask.T), plan.transposed, plan.to_transposed, height)


def union_density(plan: Plan, height: int) -> float:
    """Return the fraction of the matrix that its panels touch: what a product of panels costs, 1 being dense.

    >>> union_density(Plan.of(np.eye(4, dtype=bool)), height=2)
    0.5
    """
    key = "union density", height
    if key not in plan.made:
        mask, order = plan.mask, _order(plan.rows)
        pieces = [mask[order[edge : edge + height]] for edge in range(0, len(order), height)]
        touched = sum(int(piece.any(0).sum()) * len(piece) for piece in pieces)
        plan.made[key] = touched / mask.size if mask.size else 1.0
    return plan.made[key]


def _order(rows: Rows) -> NDArray[np.int32]:
    return np.argsort(-np.diff(rows.starts), kind="stable").astype(np.int32)


def _panels(mask: NDArray[np.bool_], rows: Rows, order: NDArray[np.int32], height: int) -> Panels:
    members = np.full(-(-len(mask) // height) * height, -1, np.int32)
    members[: len(mask)] = _order(rows)
    members = members.reshape(-1, height)
    unions = [np.flatnonzero(mask[own[own >= 0]].any(0)).astype(np.int32) for own in members]
    widest = np.argsort([-len(union) for union in unions], kind="stable")
    columns, positions, chunks = [np.empty(0, np.int32)], [np.empty(0, np.int32)], []
    for panel in widest:
        own, union = members[panel][members[panel] >= 0], unions[panel]
        chunks.append(-(-len(union) // CHUNK))
        slots = np.full(chunks[-1] * CHUNK, -1, np.int32)
        slots[: len(union)] = union
        tile = np.full((height, len(slots)), -1, np.int32)
        entries = [order[rows.starts[row] : rows.starts[row + 1]] for row in own]
        tile[: len(own), : len(union)][mask[own][:, union]] = np.concatenate(entries)
        columns.append(slots)
        positions.append(tile.reshape(height, -1, CHUNK).swapaxes(0, 1).reshape(-1))
    starts = np.concatenate([[0], np.cumsum(chunks, dtype=np.int64) * CHUNK]).astype(np.int64)
    owners = np.repeat(np.arange(len(chunks), dtype=np.int32), chunks)
    return Panels(
        height, members[widest].reshape(-1), starts, np.concatenate(columns), owners, np.concatenate(positions)
    )
