"""What each output of a gather reads, and how the work is cut into programs.

An output row is a weighted sum of runs of contiguous numbers. In a linear layer a run is one row of activations; in a
convolution it is a line of the image. A weight's `base` says where its runs begin, counted in places of an input; at
every place, the examples of a batch lie side by side.

    outputs[row, i, :] = Σ over the row's weights n of values[n] · inputs[bases[n] + i · step + (0 … length − 1)]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.sparse.kernels.widths import power_of_two
from pruning.sparse.plans.plan import Plan

# Programs that keep every multiprocessor of a large device busy a few times over.
ENOUGH_PROGRAMS = 528
MOST_PARTS = 64
# What a warp holds at once.
NUMBERS = 512


@dataclass(frozen=True)
class Reads:
    """Where the weights of each output row read.

    Attributes:
        starts: position of each row's first weight, and the number of weights [rows + 1], int32.
        bases: place where the runs of each weight begin [kept], the narrowest of int16, int32 and int64.
    """

    starts: NDArray[np.int32]
    bases: NDArray[np.signedinteger]

    @classmethod
    def of(cls, starts: NDArray[np.int32], bases: NDArray[np.integer]) -> Reads:
        """Return the reads; indices are half of the bytes of a small batch, so they are stored as narrow as they fit.

        >>> [Reads.of(np.array([0, 1], np.int32), np.array([base])).bases.itemsize for base in (9, 40000, 1 << 40)]
        [2, 4, 8]
        """
        widths = (np.int16, np.int32, np.int64)
        return cls(starts, bases.astype(next(kind for kind in widths if bases.max(initial=0) <= np.iinfo(kind).max)))


@dataclass(frozen=True)
class Runs:
    """The runs that every weight reads and every output row consists of.

    Attributes:
        count: runs of a row.
        length: places of a run.
        step: places from the beginning of a run to that of the next, where they are read.
    """

    count: int = 1
    length: int = 1
    step: int = 0


@dataclass(frozen=True)
class ProgramTile:
    """What one program holds at once, all powers of two: output rows × weights of each × numbers of a run."""

    rows: int
    weights: int
    batch: int
    warps: int


def linear_reads(plan: Plan) -> Reads:
    """Return which inputs the outputs of a linear layer read.

    >>> linear_reads(Plan.of([[0, 1], [1, 1]])).bases.tolist()
    [1, 0, 1]
    """
    return Reads.of(plan.rows.starts, plan.rows.columns)


def transposed_reads(plan: Plan) -> Reads:
    """Return which gradients of a linear layer's outputs the gradients of its inputs read.

    >>> transposed_reads(Plan.of([[0, 1], [1, 1]])).bases.tolist()
    [1, 0, 1]
    """
    return Reads.of(plan.transposed.starts, plan.transposed.columns)


def sum_tile(fan_in: float, numbers: int, bytes_each: int) -> ProgramTile:
    """Return the tile of weighted sums of about `fan_in` weights and runs of `numbers` numbers.

    16 numbers for each thread: enough loads under way at once, and registers left. 512 contiguous bytes are what a
    warp loads in one go; where runs are shorter, a program takes more weights, and more rows where weights are few.
    In a large batch arithmetic counts, and a step takes at most a quarter of a row, so that the last one is not mostly
    idle. In a small batch latency counts, and a step takes a whole row where it can.

    >>> sum_tile(200, 1024, 4), sum_tile(3, 1024, 4), sum_tile(200, 1, 4)
    (ProgramTile(rows=1, weights=16, batch=128, warps=4), ProgramTile(rows=16, weights=1, batch=128, warps=4), \
ProgramTile(rows=2, weights=256, batch=1, warps=1))
    """
    batch, warps = _run(numbers, bytes_each)
    lines = max(1, NUMBERS * warps // batch)
    weights = min(lines, power_of_two(fan_in / 4 if warps == 4 else fan_in))
    return ProgramTile(min(16, lines // weights), weights, batch, warps)


def gradient_tile(fan_in: float, numbers: int, bytes_each: int) -> ProgramTile:
    """Return the tile of gradients of a row's weights: of one row, and of more numbers where weights are few.

    >>> gradient_tile(200, 1024, 4), gradient_tile(3, 1024, 4)
    (ProgramTile(rows=1, weights=16, batch=128, warps=4), ProgramTile(rows=1, weights=4, batch=512, warps=4))
    """
    batch, warps = _run(numbers, bytes_each)
    weights = min(max(1, NUMBERS * warps // batch), power_of_two(fan_in))
    return ProgramTile(1, weights, min(power_of_two(numbers), NUMBERS * warps // weights), warps)


def _run(numbers: int, bytes_each: int) -> tuple[int, int]:
    """Return how many numbers of a run a tile holds, and the warps that share it."""
    batch = min(512 // bytes_each, power_of_two(numbers))
    return batch, 4 if batch >= 64 else 2 if batch >= 16 else 1


def parts_of(programs: int, steps: int) -> int:
    """Return into how many parts a sum of `steps` steps is cut where programs are too few to fill a device.

    The parts are added afterwards, in order: no atomic additions, the same bits every time.

    >>> parts_of(2000, 100), parts_of(64, 100), parts_of(1, 3)
    (1, 16, 4)
    """
    wanted = 1 if programs >= ENOUGH_PROGRAMS // 2 else power_of_two(ENOUGH_PROGRAMS / max(programs, 1))
    return min(wanted, power_of_two(steps), MOST_PARTS)


def row_groups(starts: NDArray[np.int32], rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return groups of rows that keep about equally many weights, those that keep the most first.

    Args:
        starts: the starts of the rows [all + 1].
        rows: of a group.

    Returns:
        The rows of each group [groups · rows], -1 where the last is not full, and the most weights that a row of each
        group keeps [groups].

    >>> row_groups(np.array([0, 1, 1, 4], np.int32), rows=2)
    (array([ 2,  0,  1, -1], dtype=int32), array([3, 0], dtype=int32))
    """
    kept = np.diff(starts)
    order = np.argsort(-kept, kind="stable").astype(np.int32)
    groups = np.full(-(-len(kept) // rows) * rows, -1, np.int32)
    groups[: len(order)] = order
    return groups, kept[order[::rows]].astype(np.int32)


def segments(starts: NDArray[np.int32], weights: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the rows cut into segments of at most `weights` weights: row and first weight of each [segments].

    >>> segments(np.array([0, 3, 3, 4], np.int32), weights=2)
    (array([0, 0, 2], dtype=int32), array([0, 2, 3], dtype=int32))
    """
    pieces = -(-np.diff(starts) // weights)
    rows = np.repeat(np.arange(len(pieces), dtype=np.int32), pieces)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return rows, (starts[rows] + place * weights).astype(np.int32)
