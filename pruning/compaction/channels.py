"""Channels of a value, and what an operation does with them.

A **channel** is one unit of a layer: a feature of a linear layer, a filter of a convolution. A value of the network
has its channels along one axis, and a channel may be **constant**: the same number for every input, every example
and every position.

Three things can happen to channels, and each is a small frozen record that a rule returns:

    Mix    every output channel may read every input channel (linear, convolution)
    Carry  every output channel reads a few channels that belong to it (ReLU, pooling, flatten, sum, concatenation, …)
    Peek   only the size is read

An operation that does none of these is dense: it reads everything, and nothing is known of what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Channels:
    """The channels of a value, before anything is removed.

    Attributes:
        axis: where they lie, counted from the front.
        constant: value of each constant channel [width]; NaN where a channel depends on the input.
    """

    axis: int
    constant: Numbers

    @property
    def width(self) -> int:
        """How many channels there are."""
        return len(self.constant)

    @property
    def known(self) -> Flags:
        """Which channels are constant [width]."""
        return ~np.isnan(self.constant)


@dataclass(frozen=True)
class Link:
    """Which output channels belong to which channels of one source.

    Attributes:
        source: the value that is read.
        axis: where these channels lie in the source.
        inner: channel of the source, for each pair [pairs].
        outer: channel of the output, for each pair [pairs].
        reads: whether the output's value depends on the source there [pairs]. A pair that does not read still stays
            together: the operation cannot give the one channel without being fed the other.
    """

    source: fx.Node
    axis: int
    inner: Indices
    outer: Indices
    reads: Flags

    @classmethod
    def straight(cls, source: fx.Node, axis: int, width: int, offset: int = 0) -> Link:
        """Channel j of the source belongs to channel `offset` + j of the output."""
        each = np.arange(width)
        return cls(source, axis, each, each + offset, np.ones(width, bool))

    def demanded(self, outputs: Flags, width: int) -> Flags:
        """Return which of the source's channels [width] the operation needs to give these outputs."""
        return _marked(self.inner[outputs[self.outer]], width)

    def read(self, outputs: Flags, width: int) -> Flags:
        """Return on which of the source's channels [width] the values of these outputs depend."""
        return _marked(self.inner[outputs[self.outer] & self.reads], width)

    def given(self, inputs: Flags, width: int) -> Flags:
        """Return which output channels [width] come out when these of the source go in."""
        return _marked(self.outer[inputs[self.inner]], width)


@dataclass(frozen=True)
class Cut:
    """What a narrower form of an operation has to give.

    Attributes:
        outputs: the channels that come out [width].
        right: those of them whose values matter [width]; the others may be anything finite.
        inputs: the channels of the source that go in; only a `Mix` looks at them.
    """

    outputs: Flags
    right: Flags
    inputs: Flags


@dataclass(frozen=True)
class Change:
    """How an operation is made narrower.

    Attributes:
        module: stands in the place of the operation's module; None leaves it.
        kept: the part of the mask that is left, by the new module's own parameter names.
        arguments: replace the operation's positional arguments; None leaves them.
    """

    module: nn.Module | None = None
    kept: Mapping[str, Flags] = field(default_factory=dict)
    arguments: tuple[object, ...] | None = None


def unchanged(_: Cut) -> Change:
    """Leave the operation as it is: it takes channels as they come."""
    return Change()


@dataclass(frozen=True)
class Carry:
    """An operation whose output channels each belong to a few channels of its sources.

    It must map finite numbers to finite ones, whatever they are: channels that nobody needs may hold anything. Sources
    without a link are read whole.
    """

    channels: Channels
    links: tuple[Link, ...]
    narrow: Callable[[Cut], Change] = unchanged


@dataclass(frozen=True)
class Mix:
    """An operation whose output channels each may read all channels of one source.

    Attributes:
        source: the value that is read.
        axis: where the columns lie in the source.
        channels: the channels of the output.
        connected: whether a kept weight leads from a column to a row [rows, columns].
        folded: the constant of each column that goes into the bias [columns]; NaN where a column has to be read.
        taps: weights between one row and one column.
        narrow: makes the smaller layer.
    """

    source: fx.Node
    axis: int
    channels: Channels
    connected: Flags
    folded: Numbers
    taps: int
    narrow: Callable[[Cut], Change]

    def read(self, outputs: Flags) -> Flags:
        """Return the columns on which these outputs depend."""
        return self.connected[outputs & ~self.channels.known].any(0) & np.isnan(self.folded)


@dataclass(frozen=True)
class Peek:
    """An operation that reads a value's size or type, and none of its elements.

    Attributes:
        width: the number it gives where that is a count of channels, which must not change; else None.
    """

    width: int | None = None


Behaviour = Carry | Mix | Peek


def carried(link: Link, constant: Numbers, width: int) -> Numbers:
    """Return the constants [width] of outputs that repeat or gather a source's channels: equal ones stay constant."""
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    with np.errstate(invalid="ignore"):
        np.minimum.at(low, link.outer, constant[link.inner])
        np.maximum.at(high, link.outer, constant[link.inner])
    return np.where(low == high, low, np.nan)


def unknown_where_infinite(constant: Numbers) -> Numbers:
    """Return constants with NaN for infinite ones: those are left to the network itself."""
    return np.where(np.isfinite(constant), constant, np.nan)


def _marked(indices: Indices, width: int) -> Flags:
    marks = np.zeros(width, bool)
    marks[indices] = True
    return marks
