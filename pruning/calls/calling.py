"""How a batch of inputs is handed to a model: the one place that says so."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as torch_tree

from pruning.errors import BadValue

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


def by_example(model: Any, batch: Any) -> Any:
    """Call a model with lists of examples: of inputs, and of targets if its second argument is called so.

    What torchvision's detectors take: a list of images, and a list of dictionaries, which they need for their losses.

    >>> by_example(lambda images, targets=None: (images, targets), ([1, 2], ["a", "b"]))
    ([1, 2], ['a', 'b'])
    >>> by_example(lambda images, mask=None: (images, mask), ([1, 2], ["a", "b"]))
    ([1, 2], None)
    """
    inputs, targets = batch
    parameters = _parameters(model) or {}
    second = list(parameters)[1:2]
    return model(inputs, targets) if second and second[0] in _TARGETS else model(inputs)


def spread(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments of one call.

    - A mapping gives keywords, if the model's `forward` takes its keys. One whose keys it knows none of is one
      argument, if that is all that `forward` asks for.
    - A tuple or list is spread, if `forward` takes that many arguments. A named tuple that it does not take apart, and
      a list of tensors of one kind (images of several sizes), are one argument.
    - Anything else is one argument: a tensor, a packed sequence, a batch object.

    Raises:
        BadValue: a mapping or tuple that `forward` does not take; the message says how to call it instead.

    >>> spread(nn.Linear(2, 1), [1]), spread(nn.Linear(2, 1), {"input": 1}), spread(nn.Linear(2, 1), {"x": 1})
    (((1,), {}), ((), {'input': 1}), (({'x': 1},), {}))
    """
    if isinstance(inputs, Mapping):
        return _of_mapping(model, inputs)
    if not isinstance(inputs, tuple | list) or isinstance(inputs, PackedSequence):
        return (inputs,), {}
    return _of_sequence(model, inputs)


_TARGETS = ("targets", "target", "labels", "annotations")
_SEVERAL = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _of_mapping(model: nn.Module, inputs: Mapping[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = _parameters(model)
    if parameters is None or _fits(parameters, (), inputs):
        return (), dict(inputs)
    names = [name for name, parameter in parameters.items() if parameter.kind not in _SEVERAL]
    unknown = [key for key in inputs if key not in names]
    if len(unknown) == len(inputs) and _asks_for_one(parameters):
        return (inputs,), {}
    lacking = [name for name in names if parameters[name].default is Parameter.empty and name not in inputs]
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    raise _refused(
        model,
        f"of the batch's entries it does not take {_listed(unknown)}"
        if unknown and not takes_any
        else f"the batch lacks {_listed(lacking)}",
        names,
        f"model(batch[{str(next(iter(inputs), 'x'))!r}])",
    )


def _of_sequence(model: nn.Module, inputs: tuple[Any, ...] | list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = _parameters(model)
    if parameters is None or _fits(parameters, tuple(inputs), {}):
        return tuple(inputs), {}
    if _asks_for_one(parameters) and (hasattr(inputs, "_fields") or _of_one_kind(inputs)):
        return (inputs,), {}
    kinds = [type(item).__name__ for item in inputs]
    what = f"the batch is a {type(inputs).__name__} of {len(inputs)} ({_listed(kinds)})"
    names = [name for name, parameter in parameters.items() if parameter.kind not in _SEVERAL]
    few = ", ".join(f"batch[{index}]" for index in range(len(names))) or "batch"
    raise _refused(model, what, names, f"model({few})")


def _parameters(model: Any) -> Mapping[str, Parameter] | None:
    """Return the parameters of a model's `forward`; None where they cannot be seen."""
    forward = getattr(model, "forward", model)
    function = getattr(forward, "__func__", None)
    if not inspect.isfunction(function):
        return _signature(forward)
    return dict(list((_known(function) or {}).items())[1:])  # without self


def _signature(function: Any) -> Mapping[str, Parameter] | None:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # inspect's words for what has no signature in Python
        return None


# Looked at for every batch; methods of classes are few, and hold nothing.
_known = functools.lru_cache(maxsize=64)(_signature)


def _fits(parameters: Mapping[str, Parameter], args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> bool:
    try:
        inspect.Signature(list(parameters.values())).bind(*args, **kwargs)
    except TypeError:  # inspect's word for arguments that do not fit
        return False
    return True


def _asks_for_one(parameters: Mapping[str, Parameter]) -> bool:
    """Say whether one positional argument is all that must be given, and the only one that can be without a default."""
    named = [parameter for parameter in parameters.values() if parameter.kind not in _SEVERAL]
    required = [parameter for parameter in named if parameter.default is Parameter.empty]
    first = next(iter(named), None)
    return (
        first is not None
        and first.kind is not Parameter.KEYWORD_ONLY
        and required in ([first], [])
        and (bool(required) or len(named) == 1)
    )


def _of_one_kind(items: tuple[Any, ...] | list[Any]) -> bool:
    """Say whether all are tensors with the same number of axes and the same type."""
    return (
        all(isinstance(item, torch.Tensor) for item in items) and len({(item.ndim, item.dtype) for item in items}) == 1
    )


def _refused(model: nn.Module, what: str, names: list[str], example: str) -> BadValue:
    kind = type(model).__name__
    return BadValue(
        f"{kind}.forward takes ({', '.join(names)}), and {what}: hand over what it takes, or say how it is called, as "
        f"in `forward=lambda model, batch: {example}` (the loss then gets the whole batch, if that is no pair)"
    )


def _listed(names: list[Any]) -> str:
    shown = ", ".join(map(str, names[:6]))
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
