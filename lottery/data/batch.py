"""One batch, in whatever containers its loader hands it over: what it holds, how many examples, moved, cut, joined."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from pruning.calls.calling import Forward, Whole, by_example
from pruning.errors import DataError


class Examples(list[Any]):
    """A list with one entry for each example, as detectors take their targets: it cannot be cut like a tensor."""


def split_batch(batch: Any, forward: Forward | None = None) -> tuple[Any, Any]:
    """Return `(inputs, targets)`: a pair is taken apart, any other pytree is both (its loss finds the labels).

    A list of inputs beside a list of dictionaries is one of examples: the inputs are one argument, not several.

    Args:
        batch: as its loader gave it.
        forward: the caller's own way to call a model, which gets the whole batch.

    >>> split_batch((1, 2)), split_batch({"x": 1})
    ((1, 2), ({'x': 1}, {'x': 1}))
    """
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    inputs, targets = (batch[0], batch[1]) if pair else (batch, batch)
    if pair and _by_example(inputs, targets):
        listed = Examples(targets)
        return Whole((inputs, listed), forward or by_example), listed
    return (inputs if forward is None else Whole(batch, forward)), targets


def move(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on `device`; what knows how to move itself (`.to`) does so."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            # A tensor that was made in inference mode is of no use to autograd; a copy is.
            usable = leaf.clone() if leaf.is_inference() else leaf
            return usable.to(device, non_blocking=True)
        if not callable(getattr(leaf, "to", None)) or isinstance(leaf, type):
            return leaf
        # Some batch classes move in place: the loader's own object stays as it was.
        own: Any = leaf if isinstance(leaf, PackedSequence) else copy.copy(leaf)
        return own.to(device)

    return mapped(moved, value, whole=_moves_itself)


def copied(batch: Any) -> Any:
    """Return a batch with copies of its tensors: what is done to them in place is not done to the data.

    >>> batch = (torch.zeros(2), {"labels": torch.zeros(2)})
    >>> copied(batch)[1]["labels"].add_(1), batch[1]["labels"]
    (tensor([1., 1.]), tensor([0., 0.]))
    """
    return mapped(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, batch, whole=_moves_itself)


def size(batch: Any) -> int:
    """Return the number of examples.

    Raises:
        DataError: a batch that does not tell.

    >>> size({"length": 7, "tokens": [torch.zeros(4, 2), torch.zeros(9)]}), size(torch.zeros(9, 4))
    (4, 9)
    """
    found = counted(batch)
    if found is None:
        raise DataError(
            f"a batch holds no tensor, so that its examples cannot be counted ({type(batch).__name__}): give it a "
            "`num_graphs`, a `y` or a `__len__`"
        )
    return found


def counted(batch: Any) -> int | None:
    """Return the number of examples: of those in a list, else the length of the first array in a batch.

    Of an object of another class it is `num_graphs`, the length of its labels `y`, or its own length. None where
    nothing tells.

    >>> counted(Examples([{"boxes": torch.zeros(9, 4)}, {"boxes": torch.zeros(3, 4)}])), counted(("a", None))
    (2, None)
    """
    listed = next((found for found in _containers(batch) if isinstance(found, Examples)), None)
    if listed is not None:
        return len(listed)
    return next((count for count in map(_length, leaves(batch)) if count is not None), None)


def is_divisible(batch: Any) -> bool:
    """Say whether the examples lie along the first axis of every tensor in a batch, so that it can be cut and joined.

    A packed sequence, an object of another class, or tensors of different lengths (the edges of a graph beside its
    nodes, lengths beside padded text with time first) are one whole.

    >>> is_divisible((torch.zeros(4, 2), torch.zeros(4))), is_divisible((torch.zeros(4, 2), torch.zeros(3)))
    (True, False)
    """
    parts = list(leaves(batch))
    tensors = [leaf for leaf in parts if isinstance(leaf, torch.Tensor)]
    others = [leaf for leaf in parts if not isinstance(leaf, torch.Tensor)]
    plain = all(leaf is None or isinstance(leaf, bool | int | float) for leaf in others)
    if any(isinstance(found, Examples) for found in _containers(batch)):
        return False
    return bool(tensors) and plain and len({len(t) if t.dim() else -1 for t in tensors} | {size(batch)}) == 1


def rows(batch: Any, first: int, last: int) -> Any:
    """Return the examples from `first` to before `last` of a batch.

    Raises:
        DataError: a batch that cannot be cut.
    """
    if first == 0 and last >= size(batch):
        return batch
    if not is_divisible(batch):
        raise DataError("single examples are needed, and these batches cannot be cut along the first axis")
    return mapped(lambda leaf: leaf[first:last] if isinstance(leaf, torch.Tensor) else leaf, batch)


def chunks(batch: Any, most: int) -> Iterator[Any]:
    """Yield a batch in pieces of at most `most` examples; a batch that cannot be cut comes as it is."""
    count = size(batch)
    step = most if is_divisible(batch) else count
    yield from (rows(batch, first, min(first + step, count)) for first in range(0, count, step))


def form(batch: Any) -> Any:
    """Return what two batches must agree in to be joined: containers, kinds, and the shape of one example."""

    def kind(leaf: Any) -> Any:
        return (tuple(leaf.shape[1:]), str(leaf.dtype)) if isinstance(leaf, torch.Tensor) else repr(leaf)

    return repr(mapped(kind, batch))


def joined(batches: Sequence[Any]) -> Any:
    """Return batches of one form as one batch."""
    first, *rest = batches
    if not rest:
        return first
    return mapped(lambda *parts: torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0], first, *rest)


def leaves(batch: Any) -> Iterator[Any]:
    """Yield what a batch holds inside tuples, lists, mappings and dataclasses."""
    inside = _inside(batch)
    if inside is None:
        yield batch
    else:
        for item in inside:
            yield from leaves(item)


def mapped(function: Callable[..., Any], *batches: Any, whole: Callable[[Any], bool] = lambda value: False) -> Any:
    """Return the containers of a batch around what `function` makes of its leaves; mappings become dictionaries.

    Args:
        function: of as many leaves as there are batches.
        batches: of the same containers.
        whole: says which containers to take for a leaf.
    """
    first = batches[0]
    if _inside(first) is None or whole(first):
        return function(*batches)

    def each(*items: Any) -> Any:
        return mapped(function, *items, whole=whole)

    if isinstance(first, Whole):
        return Whole(each(*(batch.batch for batch in batches)), first.forward)
    if isinstance(first, Mapping):
        return {key: each(*(batch[key] for batch in batches)) for key in first}
    if dataclasses.is_dataclass(first):
        made = copy.copy(first)
        for field in dataclasses.fields(first):
            # Past a frozen dataclass's own guard: the copy is nobody else's yet.
            object.__setattr__(made, field.name, each(*(getattr(batch, field.name) for batch in batches)))
        return made
    items = [each(*parts) for parts in zip(*batches, strict=True)]
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*items)
    return type(first)(items) if isinstance(first, Examples) else tuple(items) if isinstance(first, tuple) else items


def _inside(value: Any) -> list[Any] | None:
    """Return what a container of a batch holds, or None for anything else."""
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Whole):
        return [value.batch]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _moves_itself(value: Any) -> bool:
    return not isinstance(value, dict | tuple | list) and callable(getattr(value, "to", None))


def _containers(batch: Any) -> Iterator[Any]:
    """Yield every container in a batch, the outer ones first."""
    inside = _inside(batch)
    if inside is not None:
        yield batch
        for item in inside:
            yield from _containers(item)


def _by_example(inputs: Any, targets: Any) -> bool:
    """Say whether a pair is of lists with an entry for each example: tensors, and dictionaries of targets."""
    both = all(isinstance(part, tuple | list) and part for part in (inputs, targets)) and len(inputs) == len(targets)
    return (
        both
        and all(isinstance(item, torch.Tensor) for item in inputs)
        and all(isinstance(item, Mapping) for item in targets)
    )


def _length(leaf: Any) -> int | None:
    if isinstance(leaf, PackedSequence):
        return int(leaf.batch_sizes[0])
    if hasattr(leaf, "shape"):
        return leaf.shape[0] if len(leaf.shape) else None
    if isinstance(leaf, str | bytes):
        return None
    count = getattr(leaf, "num_graphs", None)  # what batches of graphs call it
    if isinstance(count, int):
        return count
    labels = getattr(leaf, "y", None)
    if isinstance(labels, torch.Tensor) and labels.dim():
        return len(labels)
    return len(leaf) if hasattr(leaf, "__len__") else None
