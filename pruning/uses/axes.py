"""What the axes of a weight are: outputs, inputs, taps. The one place that knows, whatever a framework's layout is.

A layer's weight is seen as a matrix [out, taps × in]: one row for each output, and in a row, tap after tap, the inputs
that the product sums over. A pattern cuts this matrix into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """The axes of one weight.

    Attributes:
        shape: the tensor's shape, with axes that hold two things split into both (groups and channels of a transposed
            convolution, gates and units of a recurrent layer).
        outputs: axes of `shape` that number the outputs.
        inputs: axes of `shape` that the product sums over; empty where every weight belongs to an output of its own.
            All other axes are taps: positions of a kernel, gates.

    >>> conv = Axes((16, 8, 3, 3), outputs=(0,), inputs=(1,))
    >>> conv.matrix_shape, conv.input_count, conv.matrix(np.zeros((16, 8, 3, 3))).shape
    ((16, 72), 8, (16, 72))
    """

    shape: Shape
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape of the matrix [out, taps × in]."""
        out = math.prod(self.shape[axis] for axis in self.outputs)
        return out, math.prod(self.shape[axis] for axis in range(len(self.shape)) if axis not in self.outputs)

    @property
    def input_count(self) -> int:
        """How many inputs a product sums over at one tap: columns that are neighbours."""
        return math.prod(self.shape[axis] for axis in self.inputs)

    def matrix(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a tensor as its matrix (a view where the memory allows it)."""
        return array.reshape(self.shape).transpose(self._order).reshape(self.matrix_shape)

    def tensor(self, matrix: NDArray[Any], shape: Shape) -> NDArray[Any]:
        """Return the tensor of this shape whose matrix this is.

        >>> axes = Axes((2, 3), outputs=(1,), inputs=(0,))
        >>> axes.tensor(axes.matrix(np.arange(6).reshape(2, 3)), (2, 3)).tolist()
        [[0, 1, 2], [3, 4, 5]]
        """
        permuted = matrix.reshape([self.shape[axis] for axis in self._order])
        return np.ascontiguousarray(permuted.transpose(np.argsort(self._order))).reshape(shape)

    @property
    def _order(self) -> tuple[int, ...]:
        taps = [axis for axis in range(len(self.shape)) if axis not in (*self.outputs, *self.inputs)]
        return (*self.outputs, *taps, *self.inputs)


def as_stored(shape: Shape) -> Axes:
    """Return the axes of a tensor of which nothing more is known: outputs first, all others are inputs.

    >>> as_stored((16, 3, 3, 3)).matrix_shape, as_stored((7,)).matrix_shape, as_stored(()).matrix_shape
    ((16, 27), (7, 1), (1, 1))
    """
    return Axes(shape, tuple(range(min(1, len(shape)))), tuple(range(1, len(shape))))
