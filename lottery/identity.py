"""Identities: what tells two models, losses or data sets apart, the same in every process.

A run directory belongs to one configuration. What a configuration cannot name (a caller's function, a module) is
identified by what it consists of: code, constants, closures, structure and values; never by a memory address.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery.torch_state import digest, state_of, to_numpy


def identify(thing: Any) -> str:
    """Return a name for a callable, a module, an object or a plain value; two that differ get different names.

    >>> identify(functools.partial(max, 1)) == identify(functools.partial(max, 2))
    False
    """
    return _identify(thing, frozenset())


def _identify(thing: Any, around: frozenset[int]) -> str:
    """Return the name of a thing; `around` are the objects that hold it, which it may refer back to."""
    if id(thing) in around:
        return "…"
    around = around | {id(thing)}
    if isinstance(thing, functools.partial):
        inside = [thing.func, *thing.args, *(item for pair in sorted(thing.keywords.items()) for item in pair)]
        return f"partial({', '.join(_identify(item, around) for item in inside)})"
    if isinstance(thing, nn.Module):
        return f"{type(thing).__qualname__}#{module_identity(thing)[:16]}"
    if isinstance(thing, types.MethodType):
        return f"{_identify(thing.__func__, around)} of {_identify(thing.__self__, around)}"
    if isinstance(thing, types.FunctionType):
        name = f"{thing.__module__}.{thing.__qualname__}"
        return f"{name}#{short_hash(_function_parts(thing, around))}" if _is_users(thing.__module__) else name
    if isinstance(thing, type | types.BuiltinFunctionType):
        return f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, torch.Tensor | np.ndarray) or (hasattr(thing, "dtype") and hasattr(thing, "__array__")):
        array = to_numpy(thing) if isinstance(thing, torch.Tensor) else np.asarray(thing)
        return f"array#{digest({'': array})[:16]}"
    if hasattr(thing, "__wrapped__"):  # a jitted function
        return f"{type(thing).__qualname__}({_identify(thing.__wrapped__, around)})"
    if isinstance(thing, Mapping):
        return f"{{{', '.join(f'{key}: {_identify(value, around)}' for key, value in thing.items())}}}"
    if isinstance(thing, list | tuple):
        return f"{type(thing).__qualname__}({', '.join(_identify(item, around) for item in thing)})"
    return _identify_object(thing, around)


def _identify_object(thing: Any, around: frozenset[int]) -> str:
    """Return the name of an object of some class: what it holds, and what calling it runs."""
    held = {key: value for key, value in getattr(thing, "__dict__", {}).items() if not key.startswith("_")}
    code = inspect.getattr_static(type(thing), "__call__", None)
    if isinstance(thing, types.ModuleType) or not (held or isinstance(code, types.FunctionType)):
        return without_addresses(repr(thing))
    fields = ", ".join(f"{key}={_identify(value, around)}" for key, value in sorted(held.items()))
    called = _identify(code, around) if isinstance(code, types.FunctionType) else ""
    return f"{type(thing).__module__}.{type(thing).__qualname__}({fields}){called}"


def module_identity(module: nn.Module) -> str:
    """Return a hash of a module: its structure, code, values, what is trainable, and modes."""
    parts = [without_addresses(repr(module))]
    for name, child in module.named_modules():
        code = short_hash(_function_parts(type(child).forward)) if _is_users(type(child).__module__) else ""
        parts.append(f"{name} {type(child).__module__}.{type(child).__qualname__} {code} {_plain_attributes(child)}")
    parts += [f"{name} {parameter.requires_grad}" for name, parameter in module.named_parameters()]
    return short_hash([*parts, digest(state_of(module))], length=64)


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


def _plain_attributes(module: nn.Module) -> list[tuple[str, str]]:
    """Return a module's own numbers, texts and switches (its mode among them), by name."""
    plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str | tuple | None)}
    return sorted((name, without_addresses(repr(value))) for name, value in plain.items() if not name.startswith("_"))


def _is_users(module: str) -> bool:
    """Say whether code is neither torch's nor ours, whose versions are recorded."""
    return not module.startswith(("torch.", "lottery."))


def _function_parts(function: Any, around: frozenset[int] = frozenset()) -> list[str | bytes]:
    if not isinstance(function, types.FunctionType):
        return [_identify(function, around)]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    bound = [*cells, *(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
    return [*_code_parts(function.__code__), *(_identify(value, around) for value in bound)]


def _code_parts(code: types.CodeType) -> list[str | bytes]:
    nested = [part for const in code.co_consts if isinstance(const, types.CodeType) for part in _code_parts(const)]
    plain = [repr(const) for const in code.co_consts if not isinstance(const, types.CodeType | frozenset)]
    sets = [repr(sorted(const, key=repr)) for const in code.co_consts if isinstance(const, frozenset)]
    return [code.co_code, repr(code.co_names), *plain, *sets, *nested]


def without_addresses(text: str) -> str:
    """Return a text without the memory addresses that Python puts into a `repr`."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
