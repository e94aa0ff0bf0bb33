"""Modules inside one that cannot be seen through: how they are called, so that each can be compacted by itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import copied, flattened
from pruning.compaction.tracing import is_layer


@dataclass(frozen=True)
class Seen:
    """One call of a module.

    Attributes:
        call: its arguments, as they were before anything wrote into them.
        output: its output.
        within: the modules that were running, from the outside to the inside.
    """

    call: Call
    output: Any
    within: tuple[str, ...]


@dataclass(frozen=True)
class Inner:
    """What was found inside a module.

    Attributes:
        modules: submodules that stand alone, with one of their calls.
        refused: submodules that do not, and why.
    """

    modules: dict[str, Seen]
    refused: dict[str, str]


def inner_modules(root: nn.Module, path: str, call: Call) -> Inner:
    """Find the outermost modules inside the one at `path` that its code does nothing with but call."""
    seen = _recorded(root, call)
    found = Inner({}, {})
    for name in _outermost(root.get_submodule(path), path, seen):
        calls = seen[name]
        inside = [one for other, ones in seen.items() if other.startswith(f"{name}.") for one in ones]
        if not all(_alike(calls[0].call, other.call) for other in calls):
            found.refused[name] = "it is called with inputs of different shapes"
        elif not all(name in one.within for one in inside):
            found.refused[name] = "a module inside it is called from outside"
        else:
            found.modules[name] = calls[0]
    return found


def shell(module: nn.Module) -> nn.Module:
    """Return a module with the same tensors and the same code, whose submodules can be replaced."""
    return _shell(module, {})


def _shell(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        duplicate = done[module] = copy.copy(module)
        for store in ("_parameters", "_buffers", "_modules"):
            duplicate.__dict__[store] = dict(module.__dict__[store])
        for name, child in module._modules.items():
            duplicate._modules[name] = None if child is None else _shell(child, done)
    return done[module]


def _outermost(module: nn.Module, path: str, seen: dict[str, list[Seen]]) -> Iterator[str]:
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        if full not in seen:
            yield from _outermost(child, full, seen)
        elif not is_layer(child):
            yield full


def _recorded(root: nn.Module, call: Call) -> dict[str, list[Seen]]:
    """Run the module once and note every call of every submodule."""
    seen: dict[str, list[Seen]] = {}
    running: list[tuple[str, Call]] = []

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running.append((name, Call(args, kwargs).cloned()))

    def after(name: str, output: Any) -> None:
        _, one = running.pop()
        # a copy: the module around it may write into it
        seen.setdefault(name, []).append(Seen(one, copied(output), tuple(outer for outer, _ in running)))

    handles = []
    for name, module in root.named_modules():
        if name:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: before(name, args, kwargs), with_kwargs=True
                )
            )
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    try:
        call.run(root)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _alike(one: Call, other: Call) -> bool:
    """Say whether two calls differ only in values and in the number of examples."""
    mine, theirs = (flattened((call.args, dict(call.kwargs))) for call in (one, other))
    return mine.keys() == theirs.keys() and all(_same_kind(mine[path], theirs[path]) for path in mine)


def _same_kind(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.ndim == other.ndim and one.shape[1:] == other.shape[1:]
    plain = isinstance(one, int | float | str | bool | None)
    return one is other or (plain and type(one) is type(other) and one == other)
