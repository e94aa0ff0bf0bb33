"""The graph of a network's weights: paths from its inputs to its outputs, and where layers meet, under a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pruning.errors import BadValue
from pruning.starts.tensor import Tensor


def path_lengths(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Return how many paths from the inputs to the outputs pass through how many weights: {length: paths}.

    Paths through a tensor of which the mask leaves nothing are cut. Connections without weights (residual ones) have
    no length. A connection of this kind from the network's own inputs is not seen.

    Args:
        tensors: the weights, with their places.

    Raises:
        BadValue: where a weight stands was not found, or no path is left.

    >>> import numpy as np
    >>> from pruning.starts.tensor import Layout
    >>> from pruning.starts.weight import Place
    >>> one = Layout((1, 1), (), (0,), (1,))
    >>> def named(name, place, keep=True):
    ...     return Tensor(name, np.full((1, 1), keep), one, place=place)
    >>> ends = named("a", Place(0)), named("c", Place(2, feeds=("a", "b"), last=True))
    >>> path_lengths([*ends, named("b", Place(1, feeds=("a",)))])
    {2: 1, 3: 1}
    >>> path_lengths([*ends, named("b", Place(1, feeds=("a",)), keep=False)])
    {2: 1}
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    lost = next((tensor.name for tensor in tensors if tensor.place is None), None)
    if lost is not None:
        raise BadValue(f"where {lost!r} stands in the network was not found, and paths run through it")
    done: dict[str, dict[int, int]] = {}
    for tensor in sorted(tensors, key=lambda tensor: tensor.place.index if tensor.place else 0):
        done[tensor.name] = _arriving(tensor, by_name, done) if tensor.keep.any() else {}
    total: dict[int, int] = {}
    for tensor in tensors:
        if tensor.place is not None and tensor.place.last:
            _add(total, done[tensor.name])
    if not total:
        raise BadValue("no path of weights leads from the network's inputs to its outputs under this mask")
    return dict(sorted(total.items()))


def path_sum(tensors: Sequence[Tensor]) -> float:
    """Return Σ_p L_p³ over the paths p from inputs to outputs, of L_p weights each; raises as `path_lengths`."""
    return float(sum(count * length**3 for length, count in path_lengths(tensors).items()))


def with_live_degrees(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors with the in-degree of their places lowered by each parallel one that the mask empties.

    Parallel are those that are all among what one and the same weight is fed by.

    >>> import numpy as np
    >>> from pruning.starts.tensor import Layout
    >>> from pruning.starts.weight import Place
    >>> one = Layout((1, 1), (), (0,), (1,))
    >>> def named(name, place, keep=True):
    ...     return Tensor(name, np.full((1, 1), keep), one, place=place)
    >>> pair = named("a", Place(0, in_degree=2)), named("b", Place(1, in_degree=2), keep=False)
    >>> after = named("c", Place(2, feeds=("a", "b"), last=True))
    >>> [tensor.place.in_degree for tensor in with_live_degrees([*pair, after])]
    [1, 2, 1]
    """
    empty = {tensor.name for tensor in tensors if not tensor.keep.any()}
    if not empty:
        return list(tensors)
    meeting = [set(tensor.place.feeds) for tensor in tensors if tensor.place is not None]

    def lowered(tensor: Tensor) -> Tensor:
        place = tensor.place
        if place is None or place.in_degree < 2 or tensor.name in empty:
            return tensor
        beside = set[str]().union(*(feeds for feeds in meeting if tensor.name in feeds))
        return replace(tensor, place=replace(place, in_degree=max(1, place.in_degree - len(beside & empty))))

    return [lowered(tensor) for tensor in tensors]


def _arriving(tensor: Tensor, known: Mapping[str, Tensor], done: Mapping[str, dict[int, int]]) -> dict[int, int]:
    """Return the paths up to and with a tensor, by length."""
    feeds = [name for name in tensor.place.feeds if name in known] if tensor.place is not None else []
    if not feeds:
        return {1: 1}
    found: dict[int, int] = {}
    for name in feeds:
        # One that comes later in the pass feeds a tensor that is used again: only its first use counts.
        _add(found, {length + 1: count for length, count in done.get(name, {}).items()})
    return found


def _add(total: dict[int, int], more: Mapping[int, int]) -> None:
    for length, count in more.items():
        total[length] = total.get(length, 0) + count
