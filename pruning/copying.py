"""Copies of a module that share nothing with it, whatever it keeps as attributes."""

from __future__ import annotations

import collections
import copy
import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from pruning.errors import BadValue
from pruning.users_code import one_line

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_DEPTH = 8


def copy_module(module: ModuleT) -> ModuleT:
    """Return an independent copy of a module; the module itself is not touched.

    Tensors that a forward pass left behind (activations kept for a plot, in attributes or in lists, dictionaries and
    objects inside them) are copied as plain values, without the graph that made them.

    Raises:
        BadValue: something that cannot be copied: a lock, an open file, a generator.

    >>> net = nn.Linear(2, 2)
    >>> net.seen = [net(torch.ones(1, 2))]
    >>> copy_module(net).seen[0].requires_grad
    False
    """
    memo: dict[int, Any] = {}
    for tensor in _tensors(module):
        # deepcopy refuses a tensor that is no leaf, and does not know every sparse one.
        if not tensor.is_leaf or tensor.layout != torch.strided:
            memo[id(tensor)] = _plain(tensor)
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # a module's attributes may be anything, and raise anything
        culprit = _culprit(module)
        raise BadValue(
            f"{type(module).__name__} cannot be copied{f' for its {culprit}' if culprit else ''} "
            f"({one_line(error)}); keep what cannot be copied outside the module, or give it a __deepcopy__"
        ) from error


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    alone = tensor.detach().clone()
    return nn.Parameter(alone, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else alone


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield every tensor that can be reached from a module through attributes, containers and objects."""
    seen: dict[int, Any] = {}
    level: list[Any] = list(module.modules())
    for _ in range(_DEPTH):
        following: list[Any] = []
        for thing in level:
            if id(thing) in seen:
                continue
            seen[id(thing)] = thing  # kept, so that its address is not another's meanwhile
            if isinstance(thing, torch.Tensor):
                yield thing
            else:
                following += _held_by(thing)
        level = following


def _held_by(thing: Any) -> list[Any]:
    if isinstance(thing, str | bytes | int | float | complex | type | types.ModuleType | types.FunctionType | None):
        return []
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset | collections.deque):
        return list(thing)
    if dataclasses.is_dataclass(thing):
        return [getattr(thing, field.name, None) for field in dataclasses.fields(thing)]
    return list(getattr(thing, "__dict__", {}).values())


def _culprit(module: nn.Module) -> str | None:
    """Return the attribute that cannot be copied by itself, by its dotted name and kind; None where there is none."""
    for prefix, layer in module.named_modules():
        for name, value in vars(layer).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, {id(tensor): tensor for tensor in _tensors_in(value)})
            except Exception:  # whatever is raised, this is it
                return f"attribute {f'{prefix}.{name}' if prefix else name!r} (a {type(value).__name__})"
    return None


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    holder = nn.Module()
    vars(holder)["held"] = value
    return _tensors(holder)
