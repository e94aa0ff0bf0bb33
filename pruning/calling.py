"""How a batch of inputs is handed to a model: the one place that says so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as torch_tree

Forward = Callable[[Any, Any], Any]
"""The caller's own way to call a model: `forward(model, batch)` returns the outputs."""


@dataclass(frozen=True)
class Whole:
    """Inputs that a function of the caller's hands to the model: a whole batch, as its loader gave it.

    A container of one entry, for PyTorch's pytrees too; the function is no part of the data.

    Attributes:
        batch: with the labels.
        forward: `forward(model, batch)` returns the outputs.
    """

    batch: Any
    forward: Forward


torch_tree.register_pytree_node(
    Whole, lambda whole: ([whole.batch], whole.forward), lambda batches, forward: Whole(next(iter(batches)), forward)
)


def call_once(model: Any, inputs: Any) -> Any:
    """Return the model's outputs for a batch of inputs that nobody looks at again: it may change them in place.

    >>> call_once(nn.Identity(), Whole((1, 2), lambda model, batch: model(batch[1])))
    2
    """
    if isinstance(inputs, Whole):
        return inputs.forward(model, inputs.batch)
    args, kwargs = spread(model, inputs)
    return model(*args, **kwargs)


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
