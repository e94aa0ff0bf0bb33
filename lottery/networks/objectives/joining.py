"""Batches of a pytree joined into one, for a metric that needs a whole part of the data at once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from lottery.data.batch import counted


@dataclass(frozen=True)
class Joined:
    """A pytree with the examples of all batches along the first axis.

    Attributes:
        value: the pytree; None in place of an entry that could not be joined.
        lost: for every such entry: where it is, and why. The entry "" is the pytree itself.
    """

    value: Any
    lost: Mapping[str, str]


def join(batches: Sequence[Any], counts: Sequence[int]) -> Joined:
    """Return batches as one; a single batch stays as it is.

    Args:
        batches: pytrees of one structure: tensors or arrays in tuples, lists, mappings and dataclasses.
        counts: the examples in each. Only what holds one row for each of them can be joined.

    >>> join([(torch.zeros(2), 7), (torch.ones(1), 7)], [2, 1])
    Joined(value=(tensor([0., 0., 1.]), None), lost={'[1]': 'int is no array'})
    """
    if len(batches) == 1:
        return Joined(batches[0], {})
    lost: dict[str, str] = {}
    return Joined(_joined(batches, counts, "", lost), lost)


def on_host(value: Any) -> Any:
    """Return a pytree with its tensors detached, on the CPU; those in half precision become float32, as NumPy has it.

    >>> on_host({"a": torch.zeros(1, dtype=torch.bfloat16)})["a"].dtype
    torch.float32
    """
    if isinstance(value, torch.Tensor):
        host = value.detach().cpu()
        return host.float() if host.dtype in (torch.bfloat16, torch.float16) else host
    if isinstance(value, PackedSequence):
        return value.cpu()
    parts = _parts(value)
    return value if parts is None else _rebuilt(value, {key: on_host(part) for key, part in parts.items()})


def examples(batch: Any) -> int:
    """Return the number of examples in a batch (`lottery.data.batch.counted`); one that does not tell is one.

    >>> examples({"names": ["a", "b"], "labels": np.zeros((3, 2))}), examples(["a", "b"])
    (3, 2)
    """
    found = counted(batch)
    if found is not None:
        return found
    return len(batch) if isinstance(batch, tuple | list) else 1


def _joined(values: Sequence[Any], counts: Sequence[int], place: str, lost: dict[str, str]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor | np.ndarray) or (hasattr(first, "shape") and hasattr(first, "dtype")):
        reason = _unlike(values, counts)
        if reason is None:
            return torch.cat(list(values)) if isinstance(first, torch.Tensor) else np.concatenate(list(values))
        lost[place] = reason
        return None
    if all(value is None for value in values):
        return None
    parts = [None if isinstance(value, PackedSequence) else _parts(value) for value in values]
    known = [part for part in parts if part is not None]
    if len(known) < len(values):
        lost[place] = f"{type(first).__name__} is no array"
        return None
    if any(part.keys() != known[0].keys() for part in known):
        lost[place] = f"{type(first).__name__} holds other entries in other batches"
        return None
    joined = {key: _joined([part[key] for part in known], counts, f"{place}[{key!r}]", lost) for key in known[0]}
    return _rebuilt(first, joined)


def _unlike(arrays: Sequence[Any], counts: Sequence[int]) -> str | None:
    """Return why arrays cannot be joined along their first axis, or None where they can."""
    for array, count in zip(arrays, counts, strict=True):
        if not hasattr(array, "shape"):
            return f"an array in one batch and {type(array).__name__} in another"
        if not array.shape or array.shape[0] != count:
            return f"shape {tuple(array.shape)} in a batch of {count} examples"
    shapes = list(dict.fromkeys(tuple(array.shape[1:]) for array in arrays))
    return f"batches of other shapes, {shapes[0]} and {shapes[1]} for each example" if len(shapes) > 1 else None


def _parts(value: Any) -> dict[Any, Any] | None:
    """Return the items of a container, by key, field or position; None for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _rebuilt(like: Any, parts: Mapping[Any, Any]) -> Any:
    """Return a container of the same kind that holds these parts."""
    if isinstance(like, Mapping):
        # A copy keeps the kind (a ModelOutput, a BatchEncoding), whatever its constructor takes.
        made: Any = copy.copy(like)
        for key, part in parts.items():
            made[key] = part
        return made
    if isinstance(like, tuple) and hasattr(like, "_fields"):
        return type(like)(*parts.values())
    if isinstance(like, tuple | list):
        return type(like)(parts.values())
    made = copy.copy(like)
    for name, part in parts.items():
        object.__setattr__(made, name, part)
    return made
