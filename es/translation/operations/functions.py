"""torch's functions that are seen whole, before they fall apart into operations, and what is done in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jax import lax

_INSTEAD: dict[Any, Callable[..., Any]] = {}


def function_of(function: Any) -> Callable[..., Any] | None:
    """Return the function called in place of a torch function, as `(translation, *args, **kwargs)`, or None.

    It may return `NotImplemented`, and the function itself is called.

    >>> function_of(F.linear) is _linear, function_of(F.relu)
    (True, None)
    """
    return _INSTEAD.get(function)


def _instead_of(function: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(replacement: Callable[..., Any]) -> Callable[..., Any]:
        _INSTEAD[function] = replacement
        return replacement

    return add


@_instead_of(F.linear)
def _linear(translation: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    """One product of matrices, without the transposed weight and the reshaped inputs that it falls apart into."""

    def in_jax(x: Any, weight: Any, bias: Any) -> Any:
        product = lax.dot_general(x, weight, (((x.ndim - 1,), (weight.ndim - 1,)), ((), ())))
        return product if bias is None else product + bias

    return translation.repeat_whole(F.linear, in_jax, (input, weight, bias), "aten::linear")


@_instead_of(F.one_hot)
def _one_hot(translation: Any, tensor: Any, num_classes: int = -1) -> Any:
    """torch reads the labels to check their range; equal comparison needs no value."""
    if num_classes < 0:
        return NotImplemented
    return (tensor.unsqueeze(-1) == torch.arange(num_classes)).long()


@_instead_of(torch.masked_select)
@_instead_of(torch.Tensor.masked_select)
def _masked_select(translation: Any, input: Any, mask: Any) -> Any:
    """Everything, where the mask of a batch without padding says so: how much it selects has to be known."""
    if not _all_true(translation, mask):
        return NotImplemented
    return torch.broadcast_tensors(input, mask)[0].reshape(-1)


@_instead_of(torch.nonzero)
@_instead_of(torch.Tensor.nonzero)
def _nonzero(translation: Any, input: Any, as_tuple: bool = False) -> Any:
    """All places, where a batch without padding says so."""
    if input.dtype is not torch.bool or not _all_true(translation, input):
        return NotImplemented
    return torch.ones(input.shape, dtype=torch.bool).nonzero(as_tuple=as_tuple)


def _all_true(translation: Any, mask: Any) -> bool:
    """Say whether all of a mask holds; where it does, it must hold for every batch (`Translation.conditions`)."""
    if not translation.branch:
        return False
    everywhere = mask.detach().all()
    return translation.quietly(lambda: bool(everywhere)) and bool(everywhere)


@_instead_of(torch.Tensor.__format__)
def _format(translation: Any, input: Any, how: str) -> Any:
    """What a message would say: it is made whether or not it is raised, and no number follows from it."""
    return translation.quietly(lambda: format(input.detach(), how))
