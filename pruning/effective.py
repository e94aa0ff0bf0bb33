"""Effective sparsity: which surviving weights lie on a path from an input to an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.mask import Mask

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Effective:
    """What is left of a mask when weights without a path are taken away.

    Attributes:
        mask: the surviving weights that some path from an input to an output uses.
        live: for each tensor, [out]: whether a path leads through this output unit (or channel).
    """

    mask: Mask
    live: Mapping[str, NDArray[np.bool_]]

    @property
    def dead(self) -> dict[str, int]:
        """How many output units of each tensor lie on no path."""
        return {name: int((~units).sum()) for name, units in self.live.items()}


def effective(layers: Mapping[str, NDArray[np.bool_]]) -> Effective:
    """Return the effective part of a chain of layers.

    A weight is effective if and only if it survives, some path of surviving weights leads from an input to its input
    unit, and one leads from its output unit to an output. Biases and normalization shifts make no unit reachable: what
    they alone drive is a constant, which tells nothing of the input. Exact for networks whose layers follow one
    another (units of a convolution are its channels, wherever in the kernel a weight lies), with nothing between them
    that mixes or reorders units, as a LayerNorm does (`lottery.studies.measures.dataflow.layer_chain` makes sure).

    Args:
        layers: from the input to the output, each [out, in, *kernel] as torch stores it; True keeps. A linear layer
            after a convolution takes each channel's positions one after the other, as `Flatten` lays them out.

    Raises:
        BadValue: layers that do not fit one another, so that they are no chain.

    Source: Vysogorets & Kempe 2023, section 2 (arXiv 2107.02306).

    >>> first, second = np.array([[1, 0], [0, 1], [0, 0]], bool), np.array([[1, 0, 1]], bool)
    >>> found = effective({"fc1": first, "fc2": second})
    >>> found.mask.counts(), found.dead
    ({'fc1': 1, 'fc2': 1}, {'fc1': 2, 'fc2': 0})
    """
    names = list(layers)
    positions = chain_positions({name: layers[name].shape for name in names})
    connected = [_connections(layers[name]) for name in names]

    arriving: list[NDArray[np.bool_]] = []
    reached: NDArray[np.bool_] = np.ones(connected[0].shape[1], bool)
    for links, copies in zip(connected, positions, strict=True):
        arriving.append(np.repeat(reached, copies))
        reached = np.asarray((links & arriving[-1]).any(1))

    leaving: list[NDArray[np.bool_]] = [np.ones(len(connected[-1]), bool)]
    for links, copies in zip(connected[:0:-1], positions[:0:-1], strict=True):
        used = np.asarray((links & leaving[0][:, None]).any(0))
        leaving.insert(0, np.asarray(used.reshape(-1, copies).any(1)))

    kept, live = {}, {}
    for name, links, come, go in zip(names, connected, arriving, leaving, strict=True):
        through = come & go[:, None]
        kept[name] = layers[name] & through.reshape(*through.shape, *[1] * (layers[name].ndim - 2))
        live[name] = (links & through).any(1)
    return Effective(Mask(kept), live)


def _connections(keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return [out, in]: whether any weight of the kernel connects two units."""
    return np.asarray(keep.reshape(keep.shape[0], keep.shape[1], -1).any(2))


def chain_positions(shapes: Mapping[str, Shape]) -> list[int]:
    """Return, for each layer of a chain, how many of its inputs come from one unit of the layer before.

    1 everywhere but in a linear layer after a convolution, which sees every position of a channel.

    Raises:
        BadValue: a tensor that is no layer, or does not fit the one before it.

    >>> chain_positions({"conv": (8, 1, 5, 5), "fc": (10, 8 * 49)})
    [1, 49]
    """
    positions: list[int] = []
    before: tuple[str, Shape] | None = None
    for name, shape in shapes.items():
        if len(shape) < 2 or 0 in shape:
            raise BadValue(f"not a chain of layers: {name!r} has shape {shape}, not (out, in, *kernel)")
        positions.append(1 if before is None else _copies(*before, name, shape))
        before = name, shape
    return positions


def _copies(name_before: str, before: Shape, name: str, shape: Shape) -> int:
    units, inputs = before[0], shape[1]
    if inputs == units and (len(shape) == 2 or len(shape) == len(before)):
        return 1
    if len(before) > 2 and len(shape) == 2 and inputs % units == 0:
        return inputs // units
    raise BadValue(
        f"not a chain of layers: {name!r} {_words(shape)} does not fit {name_before!r} {_words(before)}, "
        "which comes before it (effective sparsity is exact for layers that follow one another only)"
    )


def _words(shape: Sequence[int]) -> str:
    return f"with {shape[1]} inputs and {shape[0]} units"
