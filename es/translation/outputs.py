"""What torch code returns, in containers that JAX knows, and back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from es.translation.fixed import Fixed
from pruning.errors import BadValue

_NUMBERS = (int, float, complex, np.generic)


def plain(outputs: Any, convert: Callable[[torch.Tensor], Any], label: str) -> Any:
    """Return the outputs in tuples, lists, dictionaries and named tuples, their tensors converted.

    A mapping of another class, a dataclass, or any object that holds tensors becomes a dictionary of its entries; those
    that hold none are left out.

    Raises:
        BadValue: outputs without tensors or numbers.

    >>> plain({"logits": torch.ones(1), "name": "mlp"}, torch.Tensor.tolist, "mlp")
    {'logits': [1.0]}
    """
    if isinstance(outputs, torch.Tensor):
        return convert(outputs)
    if outputs is None or isinstance(outputs, _NUMBERS):
        return outputs
    if isinstance(outputs, torch.Size):
        return Fixed(outputs)
    if isinstance(outputs, PackedSequence):
        raise BadValue(f"{label} returns a PackedSequence, which has no JAX form: unpack it with pad_packed_sequence")
    if isinstance(outputs, tuple | list):
        parts = [plain(value, convert, label) for value in outputs]
        if hasattr(outputs, "_fields"):
            return type(outputs)(*parts)
        return tuple(parts) if isinstance(outputs, tuple) else parts
    kept = {key: value for key, value in _entries(outputs).items() if value is None or _is_kept(value)}
    if not any(value is not None for value in kept.values()):
        raise BadValue(f"{label} returns a {type(outputs).__name__}; expected tensors, in containers of any class")
    parts = {key: plain(value, convert, label) for key, value in kept.items()}
    if isinstance(outputs, Mapping):
        return parts
    return {key: Fixed(part) if isinstance(part, _NUMBERS) else part for key, part in parts.items()}


def restored(example: Any, tree: Any) -> Any:
    """Turn outputs that `plain` made plain back into the classes of the example.

    >>> restored({"logits": torch.ones(1), "name": "mlp"}, {"logits": 2})
    {'logits': 2, 'name': 'mlp'}
    """
    if isinstance(tree, Fixed):
        return tree.value
    if isinstance(example, torch.Tensor) or example is None or isinstance(example, _NUMBERS):
        return tree
    if isinstance(example, tuple | list):
        # One for each example of the batch, perhaps: as many as there are now, like the last one.
        like = [*example, *[example[-1]] * (len(tree) - len(example))] if example else []
        parts = [restored(*pair) for pair in zip(like, tree, strict=False)]
        return type(example)(*parts) if hasattr(example, "_fields") else type(example)(parts)
    made = copy.copy(example)
    for key, value in tree.items():
        if isinstance(example, Mapping):
            made[key] = restored(example[key], value)
        else:
            object.__setattr__(made, key, restored(getattr(example, key), value))
    return made


def _entries(outputs: Any) -> dict[Any, Any]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if dataclasses.is_dataclass(outputs):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return {} if isinstance(outputs, nn.Module | type) else dict(getattr(outputs, "__dict__", {}))


def _is_kept(value: Any, above: tuple[int, ...] = ()) -> bool:
    """Say whether a value is a tensor or a number, or holds one; it may refer to itself."""
    if isinstance(value, (torch.Tensor, *_NUMBERS)):
        return True
    if id(value) in above:
        return False
    inside = value if isinstance(value, tuple | list) else _entries(value).values()
    return any(_is_kept(each, (*above, id(value))) for each in inside)
