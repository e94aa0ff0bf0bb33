"""The plan of a sparse convolution: where its kept weights lie, and which pixels each of them joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.sparse.plans.plan import Plan

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """How a two-dimensional kernel moves over its input; a one-dimensional one has a height of 1.

    Attributes:
        kernel: (height, width).
        stride: (down, right).
        padding: zeros ((above, below), (left, right)).
        dilation: (down, right).
        groups: the number of groups that channels are split into; groups do not see each other.

    >>> Geometry((3, 3), padding=((1, 1), (1, 1))).output((28, 28))
    (28, 28)
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def output(self, size: Pair) -> Pair:
        """Return the height and width of the output for an input of this height and width; raises `BadValue`."""
        spans = [step * (k - 1) + 1 for step, k in zip(self.dilation, self.kernel, strict=True)]
        room = [n + sum(pad) - span for n, pad, span in zip(size, self.padding, spans, strict=True)]
        if min(room) < 0:
            raise BadValue(f"a kernel that spans {tuple(spans)} does not fit into an input of {size}")
        return room[0] // self.stride[0] + 1, room[1] // self.stride[1] + 1


@dataclass(frozen=True)
class Taps:
    """A convolution as a sparse matrix [out · H' · W', in · H · W], row by row.

    Attributes:
        starts: position of each row's first entry, and the number of entries [rows + 1], int32.
        columns: input pixel of each entry, int32; what padding would supply is left out.
        source: which of the kept weights each entry is, int32.
    """

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    source: NDArray[np.int32]


@dataclass(frozen=True)
class ConvPlan:
    """A mask of a convolution's weights. Immutable and hashable, like `Plan`.

    Attributes:
        weights: the plan of the matrix [out, in / groups · height · width].
        geometry: how the kernel moves.
    """

    weights: Plan
    geometry: Geometry

    @classmethod
    def of(cls, mask: NDArray[np.bool_], geometry: Geometry) -> ConvPlan:
        """Return the plan of a mask [out, in / groups, height, width]; raises `BadValue` for other shapes."""
        if mask.ndim != 4 or mask.shape[2:] != geometry.kernel or mask.shape[0] % geometry.groups:
            raise BadValue(
                f"a convolution's mask is [out, in / groups, {geometry.kernel[0]}, {geometry.kernel[1]}] with out in "
                f"{geometry.groups} groups, not {list(mask.shape)}"
            )
        return cls(Plan.of(mask.reshape(len(mask), -1)), geometry)

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvPlan:
        return self

    @property
    def outputs(self) -> int:
        """How many output channels there are."""
        return self.weights.shape[0]

    @property
    def inputs(self) -> int:
        """How many input channels there are."""
        return self.weights.shape[1] // (self.geometry.kernel[0] * self.geometry.kernel[1]) * self.geometry.groups

    def kept_taps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return output channel, input channel (of all groups), row and column in the kernel of each kept weight."""
        height, width = self.geometry.kernel
        out, place = np.divmod(self.weights.positions, self.weights.shape[1])
        inside, tap = np.divmod(place, height * width)
        group = out // (self.outputs // self.geometry.groups)
        return out, inside + group * (self.inputs // self.geometry.groups), tap // width, tap % width

    def entries(self, size: Pair) -> int:
        """Return the most entries that `taps` can have for an input of this height and width."""
        down, right = self.geometry.output(size)
        return self.weights.kept * down * right

    def taps(self, size: Pair) -> Taps:
        """Return this convolution as a sparse matrix, for inputs of this height and width.

        >>> ConvPlan.of(np.ones((1, 1, 1, 2), bool), Geometry((1, 2))).taps((1, 3)).columns.tolist()
        [0, 1, 1, 2]
        """
        (height, width), geometry = size, self.geometry
        down, right = geometry.output(size)
        _, channel, tap_row, tap_column = self.kept_taps()
        rows = np.arange(down)[:, None] * geometry.stride[0] - geometry.padding[0][0] + tap_row * geometry.dilation[0]
        columns = (
            np.arange(right)[:, None] * geometry.stride[1] - geometry.padding[1][0] + tap_column * geometry.dilation[1]
        )
        inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        starts = np.zeros(self.outputs * down * right + 1, np.int64)
        pieces_columns, pieces_source = [], []
        bounds = self.weights.rows.starts
        for unit in range(self.outputs):
            own = slice(bounds[unit], bounds[unit + 1])
            inside = inside_rows[:, None, own] & inside_columns[None, :, own]
            pixel = (channel[own] * height + rows[:, None, own]) * width + columns[None, :, own]
            first = unit * down * right
            starts[first + 1 : first + down * right + 1] = inside.sum(2).reshape(-1)
            pieces_columns.append(pixel[inside].astype(np.int32))
            source = np.broadcast_to(np.arange(bounds[unit], bounds[unit + 1], dtype=np.int32), inside.shape)
            pieces_source.append(source[inside])
        return Taps(np.cumsum(starts).astype(np.int32), np.concatenate(pieces_columns), np.concatenate(pieces_source))
