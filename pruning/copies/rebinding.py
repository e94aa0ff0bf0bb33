"""Copies of what `copy.deepcopy` hands on as it is, so that it would go on with the original.

A function is one object for Python, whatever its closure holds: in a deep copy of a module, a lambda over `self` still
computes with the module that was copied. The same holds for weak references, for methods of C (`list.append`), for
methods whose function has a closure, and for what `functools.lru_cache` wraps. A lock cannot be copied at all: each
copy gets one of its own, which nobody holds.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import threading
import types
import weakref
from typing import Any

from torch import nn

from pruning.copies.reaching import is_reference, reachable, referent

_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
_CACHED = type(functools.lru_cache(len))
_ATOMS = (types.FunctionType, types.BuiltinMethodType, _CACHED)


def graph_of(root: Any) -> dict[int, tuple[Any, list[Any]]]:
    """Return everything that can be reached from a module or another thing (see `reachable`).

    >>> layer, shared = nn.Linear(1, 1), [1]
    >>> layer.compute = lambda shared=shared: shared
    >>> id(shared) in graph_of(layer)
    True
    """
    return reachable([root, *root.modules()] if isinstance(root, nn.Module) else [root])


def copied_with(root: Any, graph: dict[int, tuple[Any, list[Any]]]) -> set[int]:
    """Return the ids of what `copy.deepcopy` copies where it copies `root`.

    >>> inside, referred = [1], nn.Linear(1, 1)
    >>> outside = [inside, weakref.ref(referred)]
    >>> graph = graph_of(outside)
    >>> id(inside) in copied_with(outside, graph), id(referred) in graph, id(referred) in copied_with(outside, graph)
    (True, True, False)
    """
    found: set[int] = set()
    level = [root]
    while level:
        thing = level.pop()
        copied = not is_reference(thing) and not isinstance(thing, _ATOMS)
        if copied and id(thing) not in found and id(thing) in graph:
            found.add(id(thing))
            held = graph[id(thing)][1]
            level += held[:1] if type(thing) is types.MethodType else held
    return found


class Memo(dict[Any, Any]):
    """A memo of `copy.deepcopy` that knows how to copy what refers to the thing that is copied.

    `copy.deepcopy` asks its memo for everything before it copies it: what is asked for first is made then.
    """

    def __init__(self, root: Any) -> None:
        super().__init__()
        self.graph = graph_of(root)
        owned = copied_with(root, self.graph)
        tied = self._leading_to(owned)
        self._special = {key: thing for key, (thing, _) in self.graph.items() if _is_special(thing, tied, owned)}
        self._tied = tied
        self._cells: dict[int, types.CellType] = {}

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the copy of the thing with this `id`, if there is one by now or if it is made here."""
        if key not in self and key in self._special:
            self._make(key, self._special[key])
        return super().get(key, default)

    def _leading_to(self, owned: set[int]) -> set[int]:
        """Return the ids of what is copied, and of everything from which that can be reached."""
        holders: dict[int, list[int]] = {}
        for key, (_, held) in self.graph.items():
            for each in held:
                holders.setdefault(id(each), []).append(key)
        found, level = set(owned), list(owned)
        while level:
            new = [key for key in holders.get(level.pop(), ()) if key not in found]
            found.update(new)
            level += new
        return found

    def _make(self, key: int, thing: Any) -> None:
        if type(thing) in _LOCKS:
            self[key] = _LOCKS[type(thing)]()
        elif isinstance(thing, contextvars.ContextVar | types.ModuleType):
            self[key] = thing  # which belongs to the program
        elif type(thing) is threading.local:
            self[key] = threading.local()
            vars(self[key]).update(copy.deepcopy(vars(thing), self))
        elif isinstance(thing, types.FunctionType):
            self._make_function(key, thing)
        elif isinstance(thing, types.MethodType):
            self[key] = types.MethodType(copy.deepcopy(thing.__func__, self), copy.deepcopy(thing.__self__, self))
        elif isinstance(thing, types.BuiltinMethodType):
            self[key] = getattr(copy.deepcopy(thing.__self__, self), thing.__name__)
        elif isinstance(thing, _CACHED):
            again = functools.lru_cache(**thing.cache_parameters())(copy.deepcopy(thing.__wrapped__, self))
            self[key] = functools.update_wrapper(again, again.__wrapped__)
        else:
            self[key] = self._reference(thing)

    def _make_function(self, key: int, function: types.FunctionType) -> None:
        cells = tuple(self._cell(cell) for cell in function.__closure__ or ())
        made = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
        self[key] = made  # before its closure is filled, which may hold the function itself
        for old, new in zip(function.__closure__ or (), cells, strict=True):
            if new is not old and not _is_filled(new):
                new.cell_contents = copy.deepcopy(old.cell_contents, self)
        made.__defaults__ = copy.deepcopy(function.__defaults__, self)
        made.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__, self)
        made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
        made.__annotations__ = function.__annotations__
        vars(made).update(copy.deepcopy(vars(function), self))

    def _cell(self, cell: types.CellType) -> types.CellType:
        """Return a new cell for a variable that leads to what is copied; others stay shared, as the program has it."""
        if not _is_filled(cell) or id(cell.cell_contents) not in self._tied:
            return cell
        return self._cells.setdefault(id(cell), types.CellType())

    def _reference(self, reference: Any) -> Any:
        target = copy.deepcopy(referent(reference), self)
        if type(reference) in weakref.ProxyTypes:
            return weakref.proxy(target)
        if isinstance(reference, weakref.WeakMethod):
            method: Any = copy.deepcopy(reference(), self)
            return weakref.WeakMethod(method)
        return weakref.ref(target, copy.deepcopy(reference.__callback__, self))


def _is_special(thing: Any, tied: set[int], owned: set[int]) -> bool:
    kind = type(thing)
    if is_reference(thing):
        # What nothing else holds would be gone before the copy is used.
        return id(referent(thing)) in owned
    if kind in _LOCKS or kind in (threading.local, contextvars.ContextVar, types.ModuleType):
        return True
    if kind is types.MethodType:
        return id(thing.__func__) in tied
    return isinstance(thing, types.FunctionType | types.BuiltinMethodType | _CACHED) and id(thing) in tied


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # Python's word for a variable that is not set yet
        return False
    return True
