"""What can be reached from an object: through attributes, containers, calls that are bound, and closures."""

from __future__ import annotations

import collections
import functools
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

_DEPTH = 12
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_NOTHING_INSIDE = (*_PLAIN, type, types.ModuleType, types.CodeType)
# Containers that hold nothing beside their items.
_BUILT_IN = (dict, collections.OrderedDict, list, tuple, set, frozenset, collections.deque)
_OWN = frozenset(vars(nn.Module()))


def reachable(roots: Iterable[Any]) -> dict[int, tuple[Any, list[Any]]]:
    """Return everything that can be reached, by its `id`, each thing with what it holds directly.

    >>> inner = [1]
    >>> [thing for thing, _ in reachable([lambda inner=inner: inner]).values() if thing is inner]
    [[1]]
    """
    found: dict[int, tuple[Any, list[Any]]] = {}
    level = list(roots)
    for _ in range(_DEPTH):
        following: list[Any] = []
        for thing in level:
            if id(thing) not in found:
                held = [each for each in _held_by(thing) if type(each) not in _PLAIN]
                found[id(thing)] = (thing, held)  # kept, so that its address is not another's meanwhile
                following += held
        level = following
    return found


def _held_by(thing: Any) -> Iterable[Any]:
    """Return the objects that an object refers to directly."""
    if is_reference(thing):
        return [] if referent(thing) is None else [referent(thing)]
    if isinstance(thing, _NOTHING_INSIDE):
        return []
    if isinstance(thing, torch.Tensor):
        return [] if thing._base is None else [thing._base]  # a view leads to what it is a view of
    if isinstance(thing, types.FunctionType):
        return [
            *filled(thing),
            *(thing.__defaults__ or ()),
            *(thing.__kwdefaults__ or {}).values(),
            *vars(thing).values(),
        ]
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, types.BuiltinMethodType):
        return [thing.__self__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values(), *vars(thing).values()]
    if isinstance(thing, nn.Module):
        # Most of what a module holds are PyTorch's own tables, and empty.
        return [value for name, value in vars(thing).items() if value is not None and (name not in _OWN or value)]
    held: list[Any] = []
    if isinstance(thing, Mapping):
        held += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset | collections.deque):
        held += thing
    if type(thing) in _BUILT_IN:
        return held
    held += getattr(thing, "__dict__", {}).values()
    return [*held, *_in_slots(thing)]


def filled(function: types.FunctionType) -> Iterator[Any]:
    """Yield the values of a function's closure; a variable that is not set yet has none."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue


def is_reference(thing: Any) -> bool:
    """Say whether a thing is a weak reference or a weak proxy, which itself pretends to be of its target's class.

    >>> layer = nn.Linear(1, 1)
    >>> is_reference(weakref.ref(layer)), is_reference(weakref.proxy(layer)), is_reference(layer)
    (True, True, False)
    """
    return type(thing) in weakref.ProxyTypes or issubclass(type(thing), weakref.ReferenceType)


def referent(reference: Any) -> Any:
    """Return what a weak reference, or a weak proxy of a module, refers to; None where it is gone or no module.

    >>> layer = nn.Linear(1, 1)
    >>> referent(weakref.ref(layer)) is layer, referent(weakref.proxy(layer)) is layer
    (True, True)
    """
    if type(reference) not in weakref.ProxyTypes:
        target = reference()
        return getattr(target, "__self__", target) if isinstance(reference, weakref.WeakMethod) else target
    try:
        # Nothing but a method gives away what is behind a proxy.
        return reference.modules.__self__ if isinstance(reference, nn.Module) else None
    except ReferenceError:
        return None


def _in_slots(thing: Any) -> Iterator[Any]:
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield getattr(thing, name)
