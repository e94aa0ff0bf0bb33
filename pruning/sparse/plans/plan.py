"""The plan of a sparse matrix: everything that follows from its mask, made once.

    mask [out, in] ─▶ plan;   values [kept] in row-major order of the mask are the trainable parameter

A plan is made from the mask and never from the values: a surviving weight that happens to be 0 is a survivor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning.errors import BadValue


@dataclass(frozen=True)
class Rows:
    """Where the kept weights of a matrix lie, row by row (compressed sparse rows).

    Attributes:
        starts: position of each row's first weight, and the number of weights [rows + 1], int32.
        columns: column of each weight [kept], int32, ascending within a row.
    """

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """A mask of a matrix, and what backends need to know of it. Immutable; equal masks have equal plans and hashes.

    Attributes:
        shape: `(out, in)`.
        packed: the mask, eight weights in a byte.

    >>> plan = Plan.of([[1, 0, 1], [0, 0, 0]])
    >>> plan.kept, plan.rows.columns.tolist(), plan.live_columns.tolist()
    (2, [0, 2], [0, 2])
    """

    shape: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, mask: ArrayLike) -> Plan:
        """Return the plan of a mask [out, in]; raises `BadValue` for anything that is no matrix of 0 and 1."""
        array = np.asarray(mask)
        if array.ndim != 2:
            raise BadValue(f"a plan is made of a matrix, not of the shape {array.shape}")
        if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
            raise BadValue("a plan is made of a mask: 0 and 1 only")
        return cls((array.shape[0], array.shape[1]), np.packbits(array.astype(bool)).tobytes())

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.shape, self.packed)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask [out, in], a fresh array."""
        size = self.shape[0] * self.shape[1]
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=size)
        return bits.astype(bool).reshape(self.shape)

    @cached_property
    def made(self) -> dict[Any, Any]:
        """What backends have made of this plan (index tensors on a device, panels); lives as long as the plan."""
        return {}

    @cached_property
    def rows(self) -> Rows:
        """The kept weights row by row: values lie in this order."""
        return _rows(self.mask)

    @cached_property
    def transposed(self) -> Rows:
        """The kept weights of the transpose, row by row."""
        return _rows(self.mask.T)

    @cached_property
    def to_transposed(self) -> NDArray[np.int32]:
        """Positions [kept]: `values[to_transposed]` are the values in the order of `transposed`."""
        row, column = self.mask.nonzero()
        return np.lexsort((row, column)).astype(np.int32)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Position of each kept weight in the flattened matrix [kept], ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        """How many weights each output keeps [out]."""
        return self.mask.sum(1)

    @cached_property
    def live_rows(self) -> NDArray[np.int64]:
        """Outputs that keep a weight, ascending."""
        return np.flatnonzero(self.fan_in)

    @cached_property
    def live_columns(self) -> NDArray[np.int64]:
        """Inputs that keep a weight, ascending."""
        return np.flatnonzero(self.mask.any(0))

    @property
    def kept(self) -> int:
        """How many weights stay."""
        return int(self.rows.starts[-1])

    @property
    def density(self) -> float:
        """Fraction of the matrix that stays; 1 of nothing."""
        size = self.shape[0] * self.shape[1]
        return self.kept / size if size else 1.0


def _rows(mask: NDArray[np.bool_]) -> Rows:
    starts = np.zeros(mask.shape[0] + 1, np.int32)
    np.cumsum(mask.sum(1), out=starts[1:])
    return Rows(starts, mask.nonzero()[1].astype(np.int32))
