"""What a network takes and returns, whatever holds it: tuples, mappings, named tuples, data classes, caches.

PyTorch's pytrees know the types that somebody registered. What other people's models return is often none of these, and
a tensor inside it would be overlooked, or come back in a plain dictionary. Everything here keeps types as they are.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import SUPPORTED_NODES, tree_flatten, tree_unflatten

from pruning.errors import BadValue

TensorFunction = Callable[[torch.Tensor], torch.Tensor]

# What is never looked into: it holds no result, or all of the program hangs on it.
_CLOSED = (
    torch.Tensor,
    nn.Module,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    torch.Size,
    torch.dtype,
    torch.device,
    torch.Generator,
    str,
    bytes,
    int,
    float,
    complex,
    range,
    slice,
    type(None),
)


@dataclass(frozen=True)
class _Open:
    """A value that holds others.

    Attributes:
        names: of what it holds: positions, keys, attributes.
        children: the items that it holds.
        rebuilt: makes one of the same type around other children.
    """

    names: tuple[str, ...]
    children: tuple[Any, ...]
    rebuilt: Callable[[list[Any]], Any]


def flattened(value: Any) -> dict[str, Any]:
    """Return everything that a value holds, by its path; types of what holds it are part of the path.

    >>> flattened(("a", {"k": 1}))
    {'tuple.0': 'a', "tuple.1:dict.'k'": 1}
    """
    found: dict[str, Any] = {}
    _flatten(value, "", found, set())
    return found


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return all tensors that a value holds, in its order.

    >>> tensors_in((torch.ones(1), {"k": [torch.zeros(1), None]}))
    [tensor([1.]), tensor([0.])]
    """
    found: list[torch.Tensor] = []
    _gather(value, found, ())
    return found


def map_tensors(function: TensorFunction, value: Any) -> Any:
    """Return a value of the same type and structure with the function of every tensor in its place.

    What holds no tensor that changes comes back itself, not as a copy.

    Args:
        function: of one tensor; called once for each, however often it is held.
        value: a tensor, or anything that holds some: containers of Python, registered pytrees, mappings, named tuples,
            data classes and other objects with attributes. Modules, functions and classes are not looked into.

    >>> from types import SimpleNamespace
    >>> map_tensors(torch.neg, SimpleNamespace(x=torch.ones(1), y=None))
    namespace(x=tensor([-1.]), y=None)
    """
    return _mapped(function, value, {})


def copied(value: Any) -> Any:
    """Return an independent copy: of tensors (outside of their graph) and of everything that holds them.

    A call may write into what it is given, and a cache grows. Modules are shared.

    Raises:
        BadValue: something that Python cannot copy.
    """
    memo: dict[int, Any] = {}
    leaves = flattened(value)  # held until the copy is made: what is freed may lend its id to something else
    for leaf in leaves.values():
        if isinstance(leaf, torch.Tensor):
            memo[id(leaf)] = leaf.detach().clone().requires_grad_(leaf.requires_grad)
        elif isinstance(leaf, nn.Module):
            memo[id(leaf)] = leaf
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # the copying code of somebody else's type may raise anything
        raise BadValue(f"an argument cannot be copied: {type(error).__name__}: {error}") from error


def same_structure(one: Any, other: Any) -> bool:
    """Say whether two values hold tensors at the same places of the same types, and the same plain values elsewhere.

    >>> same_structure((torch.ones(1), None), (torch.zeros(2), None))
    True
    >>> same_structure((torch.ones(1),), [torch.ones(1)])
    False
    """
    mine, theirs = flattened(one), flattened(other)
    return mine.keys() == theirs.keys() and all(_same_leaf(mine[path], theirs[path]) for path in mine)


def _same_leaf(one: Any, other: Any) -> bool:
    if type(one) is not type(other) and not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return False
    return one == other if isinstance(one, int | float | str | bool | None) and one == one else True


def _gather(value: Any, found: list[torch.Tensor], within: tuple[int, ...]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif id(value) not in within and (opened := _open(value)) is not None:
        for child in opened.children:
            _gather(child, found, (*within, id(value)))


def _flatten(value: Any, path: str, found: dict[str, Any], within: set[int]) -> None:
    opened = None if id(value) in within else _open(value)
    if opened is None:
        found[path] = value
        return
    here = f"{path}:{type(value).__qualname__}".lstrip(":")
    if not opened.children:
        # the path says what it is; nothing else is to be said of an empty container
        found[here] = None if isinstance(value, tuple | list | Mapping) else value
    for name, child in zip(opened.names, opened.children, strict=True):
        _flatten(child, f"{here}.{name}", found, within | {id(value)})


def _mapped(function: TensorFunction, value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """As `map_tensors`; `done` holds the objects already visited with their replacements (and so keeps them alive)."""
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, torch.Tensor):
        result = function(value)
    else:
        opened = _open(value)
        if opened is None or not opened.children:
            return value
        done[id(value)] = (value, value)  # where it holds itself
        children = [_mapped(function, child, done) for child in opened.children]
        same = all(new is old for new, old in zip(children, opened.children, strict=True))
        result = value if same else opened.rebuilt(children)
    done[id(value)] = (value, result)
    return result


def _open(value: Any) -> _Open | None:
    """Return the items of a container and a function that makes it again, or None for a leaf."""
    if isinstance(value, _CLOSED):
        return None
    if type(value) in (tuple, list):  # most of them
        return _Open(_numbered(value), tuple(value), type(value))
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return _Open(tuple(fields), tuple(value), lambda held: type(value)(*held))
    if type(value) in SUPPORTED_NODES:
        return _registered(value)
    if isinstance(value, Mapping):
        keys = tuple(value)
        return _Open(_named(keys), tuple(value[key] for key in keys), lambda held: _with_items(value, keys, held))
    if isinstance(value, list):
        return _Open(_numbered(value), tuple(value), lambda held: _with_items(value, range(len(value)), held))
    if isinstance(value, tuple):
        return _Open(_numbered(value), tuple(value), lambda held: type(value)(held))
    names = _attributes(value)
    return _Open(
        names, tuple(getattr(value, name) for name in names), lambda held: _with_attributes(value, names, held)
    )


def _registered(value: Any) -> _Open:
    children, structure = tree_flatten(value, is_leaf=lambda inner: inner is not value)
    by_key = isinstance(value, Mapping) and len(value) == len(children)
    names = _named(value) if by_key else _numbered(children)
    return _Open(names, tuple(children), lambda held: tree_unflatten(held, structure))


def _named(keys: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(repr, keys))


def _numbered(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(str, range(len(values))))


def _attributes(value: Any) -> tuple[str, ...]:
    """Return the names of an object's own attributes, in dictionaries and slots alike."""
    own = list(getattr(value, "__dict__", {}))
    slots = [slot for kind in type(value).__mro__ for slot in _listed(getattr(kind, "__slots__", ()))]
    names = dict.fromkeys([*own, *(slot for slot in slots if slot not in ("__dict__", "__weakref__"))])
    return tuple(name for name in names if hasattr(value, name))


def _listed(slots: str | Iterable[str]) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _with_items(value: Any, keys: Iterable[Any], children: list[Any]) -> Any:
    changed = copy.copy(value)
    for key, child in zip(list(keys), children, strict=True):
        changed[key] = child
    return changed


def _with_attributes(value: Any, names: tuple[str, ...], children: list[Any]) -> Any:
    changed = copy.copy(value)
    for name, child in zip(names, children, strict=True):
        object.__setattr__(changed, name, child)  # frozen data classes too
    return changed
