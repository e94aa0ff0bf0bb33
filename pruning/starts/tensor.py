"""A tensor as a framework stores it, cut into the matrices that an initializer draws, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.starts.weight import Kind, Place, Weight
from pruning.uses.axes import Axes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a tensor holds its matrices.

    Attributes:
        split: the tensor's shape, with axes that hold two things split into both (groups and channels, gates and
            units).
        parts: axes of `split` that number matrices which are drawn one by one.
        outputs: axes that number the outputs of each.
        inputs: axes that each sums over. All others are taps.

    >>> grouped = Layout((2, 4, 3, 5), parts=(0,), outputs=(1,), inputs=(2,))
    >>> grouped.cut(np.zeros((8, 3, 5))).shape, grouped.joined(np.ones((2, 4, 3, 5)), (8, 3, 5)).shape
    ((2, 4, 3, 5), (8, 3, 5))
    """

    split: Shape
    parts: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    def cut(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a tensor as its matrices, [parts, out, in, *taps]."""
        sizes = [math.prod(self.split[axis] for axis in axes) for axes in (self.parts, self.outputs, self.inputs)]
        taps = [self.split[axis] for axis in self._taps]
        return array.reshape(self.split).transpose(self._order).reshape(*sizes, *taps)

    def joined(self, matrices: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
        """Return the tensor of this shape that is made of these matrices."""
        permuted = matrices.reshape([self.split[axis] for axis in self._order])
        return np.ascontiguousarray(permuted.transpose(np.argsort(self._order))).reshape(shape)

    @property
    def _taps(self) -> tuple[int, ...]:
        named = (*self.parts, *self.outputs, *self.inputs)
        return tuple(axis for axis in range(len(self.split)) if axis not in named)

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.parts, *self.outputs, *self.inputs, *self._taps)


def layout_of(axes: Axes) -> Layout:
    """Return a layout where nothing more is known of a tensor than the roles of its axes.

    >>> layout_of(Axes((3, 4), outputs=(1,), inputs=(0,))).cut(np.zeros((3, 4))).shape
    (1, 4, 3)
    """
    return Layout(axes.shape, (), axes.outputs, axes.inputs)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that initializers draw.

    Attributes:
        name: its dotted name.
        keep: boolean, of the tensor's own shape: which entries the mask keeps; all, where no mask covers it.
        layout: how it holds its matrices.
        kinds: what each of its matrices does: one for all of them, or one for each.
        part: how messages call one of several matrices ("gate").
        activation: as for `Weight`.
        place: as for `Weight`.
        activations: where its matrices go through different functions (gates): one for each, instead of `activation`.
    """

    name: str
    keep: NDArray[np.bool_]
    layout: Layout
    kinds: tuple[Kind, ...] = ("linear",)
    part: str = "part"
    activation: str | None = "linear"
    place: Place | None = None
    activations: tuple[str | None, ...] = ()

    def weights(self) -> tuple[Weight, ...]:
        """Return the matrices to draw."""
        cut = self.layout.cut(self.keep)
        count = len(cut)
        kinds = self.kinds * count if len(self.kinds) == 1 else self.kinds
        numbered = [f"{self.part} {index + 1} of {count}" if count > 1 else "" for index in range(count)]
        activations = self.activations or (self.activation,) * count
        return tuple(
            Weight(self.name, keep, kind, part, activation, self.place)
            for keep, kind, part, activation in zip(cut, kinds, numbered, activations, strict=True)
        )

    def joined(self, matrices: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """Return the tensor that is made of these matrices, one for each of `weights()`."""
        return self.layout.joined(np.stack(matrices), self.keep.shape)
