"""Identities: what tells two models, losses or data sets apart, the same in every process.

A run directory belongs to one configuration. What a configuration cannot name (a caller's function, a module, an
object) is identified by what it consists of: code, the methods of its class, constants, closures, the globals that its
code names, attributes (private ones too) and values; never by a memory address. Code of libraries is known by its name.
No reading of code is complete: what is called also tells itself apart by what it does (`lottery.state.behaviour`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import logging
import re
import sys
import types
import weakref
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery.state.code_identity import class_functions, code_parts, global_names, is_library
from lottery.state.generators import generator_state, is_generator
from lottery.state.known_as import known_as
from lottery.state.tensors import digest, state_of, to_numpy

# What a module of PyTorch holds for itself; hooks are looked at one by one.
_TORCH_OWN = frozenset(vars(nn.Module()).keys()) - {"training"}
_LONG = 200
# Things that differ from process to process and compute nothing.
_NAMED_ONLY = (logging.Logger, io.IOBase, weakref.ReferenceType, types.ModuleType)


def identify(thing: Any) -> str:
    """Return a name for a callable, a module, an object or a plain value; two that differ get different names.

    >>> identify(functools.partial(max, 1)) == identify(functools.partial(max, 2))
    False
    """
    return _Namer().name(thing)


def module_identity(module: nn.Module) -> str:
    """Return a hash of a module: its structure, code, attributes, values, what is trainable, hooks and modes."""
    return _Namer().module(module)


def short_hash(parts: Iterable[str | bytes], length: int = 8) -> str:
    """Return the beginning of a SHA-256 over texts.

    >>> short_hash(["a", "b"]) == short_hash(["ab"])
    False
    """
    total = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()[:length]


def without_addresses(text: str) -> str:
    """Return a text without the memory addresses that Python puts into a `repr`.

    >>> without_addresses("<Net object at 0x7f01>, 0x7f01")
    '<Net object>, 0x7f01'
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


class _Namer:
    """Names things; what was met before on the way is named once, and a circle ends in `…`."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._alive: list[Any] = []  # an address means a thing only as long as the thing lives

    def name(self, thing: Any) -> str:
        if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
            return repr(thing)
        if id(thing) in self._names:
            return self._names[id(thing)]
        self._alive.append(thing)
        self._names[id(thing)] = "…"
        found = self._of_kind(thing)
        self._names[id(thing)] = found if len(found) <= _LONG else f"{found[:40]}#{short_hash([found], length=64)}"
        return self._names[id(thing)]

    def names(self, things: Iterable[Any]) -> str:
        return ", ".join(self.name(thing) for thing in things)

    def module(self, module: nn.Module) -> str:
        parts = [without_addresses(repr(module))]
        for name, child in module.named_modules():
            kind = type(child)
            code = self._class(kind) if not is_library(kind) else ""
            parts.append(f"{name} {known_as(kind.__module__)}.{kind.__qualname__} {code} {self._attributes_of(child)}")
        parts += [f"{name} {parameter.requires_grad}" for name, parameter in module.named_parameters()]
        return short_hash([*parts, digest(state_of(module))], length=64)

    def _of_kind(self, thing: Any) -> str:
        """Return the name of a thing by its kind; the kinds are tried from the narrow to the wide."""
        if isinstance(thing, functools.partial):
            return f"partial({self.names([thing.func, *thing.args])}, {self._table(thing.keywords)})"
        if isinstance(thing, nn.Module):
            return f"{type(thing).__qualname__}#{self.module(thing)[:16]}"
        if isinstance(thing, types.MethodType):
            return f"{self.name(thing.__func__)} of {self.name(thing.__self__)}"
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, type):
            name = f"{known_as(thing.__module__)}.{thing.__qualname__}"
            return name if is_library(thing) else f"{name}#{self._class(thing)}"
        if isinstance(thing, types.BuiltinFunctionType):
            owner = thing.__self__
            bound = "" if owner is None or isinstance(owner, types.ModuleType | type) else f" of {self.name(owner)}"
            return f"{known_as(thing.__module__)}.{thing.__qualname__}{bound}"
        if (array := _as_array(thing)) is not None:
            return f"array#{digest({'': array})[:16]}"
        if is_generator(thing):
            return f"{type(thing).__qualname__}({self.name(generator_state(thing))})"
        if hasattr(thing, "__wrapped__"):  # a jitted function
            return f"{type(thing).__qualname__}({self.name(thing.__wrapped__)})"
        if isinstance(thing, Mapping):
            return f"{type(thing).__qualname__}{{{self._table(thing)}}}"
        if isinstance(thing, AbstractSet):
            return f"{type(thing).__qualname__}({', '.join(sorted(self.name(item) for item in thing))})"
        if isinstance(thing, list | tuple):
            return f"{type(thing).__qualname__}({self.names(thing)})"
        if isinstance(thing, property):
            return f"property({self.names([thing.fget, thing.fset])})"
        if isinstance(thing, staticmethod | classmethod):
            return f"{type(thing).__qualname__}({self.name(thing.__func__)})"
        if isinstance(thing, _NAMED_ONLY):
            return f"{type(thing).__qualname__} {getattr(thing, '__name__', getattr(thing, 'name', ''))!s}"
        if (tree := _as_jax_tree(thing)) is not None:
            return f"tree({without_addresses(tree[1])}, {self.names(tree[0])})"
        return self._object(thing)

    def _function(self, function: types.FunctionType) -> str:
        name = f"{known_as(function.__module__)}.{function.__qualname__}"
        if is_library(function):
            return name
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        bound = [*cells, *(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        values = [self.name(value) for value in bound]
        values += [f"{key}={self.name(value)}" for key, value in global_names(function)]
        attributes = self._table(vars(function)) if vars(function) else ""
        return f"{name}#{short_hash([*code_parts(function.__code__), *values, attributes])}"

    def _class(self, kind: type) -> str:
        """Return a hash of the code of a caller's class: every function of it and of its own bases."""
        return short_hash([f"{key} {self.name(member)}" for key, member in class_functions(kind)], length=16)

    def _attributes_of(self, module: nn.Module) -> str:
        """Return what one module holds beside parameters, buffers and modules: public things of a library's own."""
        held = {key: value for key, value in vars(module).items() if key not in _TORCH_OWN}
        if is_library(type(module)):
            held = {key: value for key, value in held.items() if not key.startswith("_")}
        hooks = {key: list(value.values()) for key, value in vars(module).items() if "hooks" in key and value}
        return self._table({key: value for key, value in {**held, **hooks}.items() if not isinstance(value, nn.Module)})

    def _object(self, thing: Any) -> str:
        """Return the name of an object of some class: what it holds, and the code of its class."""
        kind = type(thing)
        if dataclasses.is_dataclass(thing):
            held = {field.name: getattr(thing, field.name, None) for field in dataclasses.fields(thing)}
        else:
            slots = [slot for base in kind.__mro__ for slot in _texts(getattr(base, "__slots__", ()))]
            held = {key: getattr(thing, key) for key in slots if hasattr(thing, key) and not key.startswith("__")}
            held |= getattr(thing, "__dict__", {})
        if is_library(kind):
            held = {key: value for key, value in held.items() if not key.startswith("_")}
            if not held:
                return without_addresses(repr(thing))
        code = "" if is_library(kind) else f"#{self._class(kind)}"
        return f"{known_as(kind.__module__)}.{kind.__qualname__}({self._table(held)}){code}"

    def _table(self, table: Mapping[Any, Any]) -> str:
        return ", ".join(
            f"{key!s}={self.name(value)}" for key, value in sorted(table.items(), key=lambda kv: str(kv[0]))
        )


def _as_array(thing: Any) -> np.ndarray[Any, Any] | None:
    """Return what an array, a tensor or a JAX random key holds, or None for anything else."""
    if isinstance(thing, torch.Tensor):
        return to_numpy(thing)
    if not (hasattr(thing, "dtype") and hasattr(thing, "shape")):
        return None
    jax = sys.modules.get("jax")
    kind = getattr(thing.dtype, "type", None)
    if jax is not None and isinstance(kind, type) and issubclass(kind, jax.dtypes.prng_key):
        # What only wraps a key (a variable of Flax) is a tree with the key as its leaf.
        return np.asarray(jax.random.key_data(thing)) if isinstance(thing, jax.Array) else None
    return np.asarray(thing) if hasattr(thing, "__array__") else None


def _as_jax_tree(thing: Any) -> tuple[list[Any], str] | None:
    """Return leaves and structure of a container that JAX knows (Equinox modules, states of Flax), or None."""
    jax = sys.modules.get("jax")
    if jax is None or dataclasses.is_dataclass(thing):
        return None
    leaves, structure = jax.tree.flatten(thing)
    return None if len(leaves) == 1 and leaves[0] is thing else (leaves, str(structure))


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a variable that is set later
        return False


def _texts(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots
