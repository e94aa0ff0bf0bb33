"""How a batch of inputs is handed to a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence


def spread(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments of one call.

    A tuple or list is spread, a mapping gives keywords, anything else is one argument: a tensor, a packed sequence, a
    batch object, and a named tuple that the model's `forward` does not take apart.

    >>> spread(nn.Linear(2, 1), [1, 2]), spread(nn.Linear(2, 1), {"input": 1})
    (((1, 2), {}), ((), {'input': 1}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if not isinstance(inputs, tuple | list) or _is_one(model, inputs):
        return (inputs,), {}
    return tuple(inputs), {}


def _is_one(model: nn.Module, inputs: tuple[Any, ...] | list[Any]) -> bool:
    if isinstance(inputs, PackedSequence):
        return True
    if not hasattr(inputs, "_fields"):
        return False
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError:  # inspect's word for arguments that do not fit
        return True
    return False
