"""One matrix that an initializer draws: a layer's, or one gate's, group's or projection's; whatever the framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "linear",
    "convolution",
    "transposed convolution",
    "recurrent input",
    "recurrent",
    "query",
    "key",
    "value",
    "attention output",
    "bilinear",
    "embedding",
]
"""What a weight does. Each gate of a recurrent layer is a weight of its own, and each group of a convolution."""

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Place:
    """Where a weight stands in its network, as far as one forward pass shows it.

    Attributes:
        index: how many weights the pass used before it.
        feeds: names of the tensors whose results its input is made of; empty for the network's own inputs.
        in_degree: edges that meet where its result goes: parallel layers whose results are summed count one each.
        last: whether its result is the network's output.
    """

    index: int
    feeds: tuple[str, ...] = ()
    in_degree: int = 1
    last: bool = False


@dataclass(frozen=True, eq=False)
class Weight:
    """One matrix to draw.

    Attributes:
        name: the dotted name of the tensor that it is (a part of).
        keep: boolean [out, in, *taps]: which entries the mask keeps; taps are the positions of a kernel.
        kind: what the weight does.
        part: which part of the tensor it is ("gate 2 of 4"); empty where it is all of it.
        activation: the name of the function that its result goes through; `linear` for none, None where that could not
            be found.
        place: where it stands in the network; None where that is not known.

    >>> weight = Weight("conv", np.ones((8, 4, 3, 3), bool), "convolution")
    >>> weight.fan_in.tolist()[:2], weight.fan_out.tolist()[:2], weight.taps, weight.density
    ([36, 36], [72, 72], 9, 1.0)
    """

    name: str
    keep: NDArray[np.bool_]
    kind: Kind = "linear"
    part: str = ""
    activation: str | None = "linear"
    place: Place | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, in, *taps]."""
        return self.keep.shape

    @property
    def outputs(self) -> int:
        """How many units it has."""
        return self.keep.shape[0]

    @property
    def inputs(self) -> int:
        """How many inputs it has, at each tap."""
        return self.keep.shape[1]

    @property
    def taps(self) -> int:
        """How many positions its kernel has; 1 for a matrix."""
        return math.prod(self.keep.shape[2:])

    @property
    def density(self) -> float:
        """The fraction of its entries that the mask keeps."""
        return float(self.keep.mean()) if self.keep.size else 0.0

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        """How many live weights each unit sums over, taps included: [out]."""
        return self.keep.sum(axis=tuple(range(1, self.keep.ndim)), dtype=np.int64)

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        """How many live weights each input goes through, taps included: [in]."""
        return self.keep.sum(axis=(0, *range(2, self.keep.ndim)), dtype=np.int64)

    def by_output(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return one value for each unit, [out], so that it broadcasts over the weight."""
        return values.reshape(-1, *([1] * (self.keep.ndim - 1)))

    def by_input(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return one value for each input, [in], so that it broadcasts over the weight."""
        return values.reshape(1, -1, *([1] * (self.keep.ndim - 2)))

    def __str__(self) -> str:
        """Return the name for messages."""
        return f"{self.name!r} ({self.part})" if self.part else f"{self.name!r}"
