"""Copies of a module that share nothing with it, whatever it keeps as attributes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from pruning.calls.users_code import one_line
from pruning.copies.rebinding import Memo, copied_with, graph_of
from pruning.copies.shared_memory import copied_together, groups_in_memory
from pruning.errors import BadValue

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def copy_module(module: ModuleT, instead: Mapping[int, Any] | None = None) -> ModuleT:
    """Return an independent copy of a module that computes with itself; the module itself is not touched.

    What would go on with the original in a plain deep copy follows the copy: functions whose closure leads to the
    module, bound methods, weak references, views of parameters, hooks and attributes of parameters. Tensors that a
    forward pass left behind (activations kept for a plot, in attributes or in lists, dictionaries and objects inside
    them) are copied as plain values, without the graph that made them. A lock is a new one.

    A function that reaches the module by a global name, and a class that is defined around it, cannot be followed:
    `pruning.copies.own_parameters` finds them.

    Args:
        module: any module.
        instead: objects that the copy holds in place of some tensors, by their `id`; these are not copied.

    Raises:
        BadValue: something that cannot be copied: an open file, a thread, a Python generator.

    >>> net = nn.Linear(2, 2)
    >>> net.doubled = lambda x, net=net: 2 * net(x)
    >>> other = copy_module(net)
    >>> _ = other.weight.data.zero_(), other.bias.data.zero_()
    >>> other.doubled(torch.ones(1, 2)).tolist()
    [[0.0, 0.0]]
    """
    memo = Memo(module)
    tensors = [thing for thing, _ in memo.graph.values() if isinstance(thing, torch.Tensor)]
    memo.update(instead or {})
    alone = [tensor for tensor in tensors if id(tensor) not in memo]
    for group in groups_in_memory(alone):
        memo.update(copied_together(group))
    for tensor in alone:
        # deepcopy refuses a tensor that is no leaf, and does not know every sparse one.
        if id(tensor) not in memo and (not tensor.is_leaf or tensor.layout != torch.strided):
            memo[id(tensor)] = _plain(tensor)
    try:
        duplicate = copy.deepcopy(module, memo)
        for tensor in alone:
            if isinstance(tensor, nn.Parameter) and id(tensor) in memo:
                _carry(tensor, memo[id(tensor)], memo)
    except Exception as error:  # a module's attributes may be anything, and raise anything
        culprit = _culprit(module)
        raise BadValue(
            f"{type(module).__name__} cannot be copied{f' for its {culprit}' if culprit else ''} "
            f"({one_line(error)}); keep what cannot be copied outside the module, or give it a __deepcopy__"
        ) from error
    _check_another(module, duplicate)
    return duplicate


def tensors_within(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield every tensor that a copy of a module has for itself: in attributes, containers and objects.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.seen = [torch.zeros(3)]
    >>> sorted(tuple(tensor.shape) for tensor in tensors_within(layer))
    [(1, 2), (3,)]
    """
    graph = graph_of(module)
    yield from (graph[key][0] for key in copied_with(module, graph) if isinstance(graph[key][0], torch.Tensor))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    alone = tensor.detach().clone()
    return nn.Parameter(alone, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else alone


def _carry(old: nn.Parameter, new: nn.Parameter, memo: Memo) -> None:
    """Give a copied parameter the attributes and the hooks of the original, which PyTorch leaves behind."""
    for name, value in vars(old).items():
        if name not in vars(new):
            setattr(new, name, copy.deepcopy(value, memo))
    after_gradient = _travelling(getattr(old, "_post_accumulate_grad_hooks", None))
    on_gradient = _travelling(old._backward_hooks)
    if on_gradient or after_gradient:
        frozen = not new.requires_grad
        new.requires_grad_()  # a hook is refused otherwise; it stays whatever comes after
        for hook in on_gradient:
            new.register_hook(copy.deepcopy(hook, memo))
        for hook in after_gradient:
            new.register_post_accumulate_grad_hook(copy.deepcopy(hook, memo))
        new.requires_grad_(not frozen)


def _travelling(hooks: Mapping[int, Any] | None) -> list[Any]:
    """Return the hooks of a parameter, but for those that the module itself puts on again (`pruning.masks.holding`)."""
    return [hook for hook in (hooks or {}).values() if not getattr(hook, "put_on_by_module", False)]


def _check_another(module: nn.Module, duplicate: nn.Module) -> None:
    """Raise `BadValue` where a module's own `__deepcopy__` hands out its own parts."""
    own = {id(parameter): name for name, parameter in module.named_parameters()}
    shared = [own[id(parameter)] for parameter in duplicate.parameters() if id(parameter) in own]
    if shared or duplicate is module:
        raise BadValue(
            f"the __deepcopy__ of {type(module).__name__} does not copy {repr(shared[0]) if shared else 'it'}: a "
            "search trains copies, and would train the original; let __deepcopy__ copy every parameter, or remove it"
        )


def _culprit(module: nn.Module) -> str | None:
    """Return the attribute that cannot be copied by itself, by its dotted name and kind; None where there is none."""
    for prefix, layer in module.named_modules():
        for name, value in vars(layer).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            memo = Memo(value)
            kept = [thing for thing, _ in memo.graph.values() if isinstance(thing, torch.Tensor | nn.Module)]
            memo.update({id(thing): thing for thing in kept})
            try:
                copy.deepcopy(value, memo)
            except Exception:  # whatever is raised, this is it
                return f"attribute {f'{prefix}.{name}' if prefix else name!r} (a {type(value).__name__})"
    return None
