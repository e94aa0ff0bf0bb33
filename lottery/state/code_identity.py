"""Code as part of an identity: which code is a caller's own, and what in it tells two versions apart."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

from pruning.calls.users_code import in_library

_MISSING = object()
_NOT_CODE = frozenset({"__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__"})
_PLAIN_CLASS = frozenset({"__abstractmethods__", "_abc_impl", "__orig_bases__", "__parameters__", "__firstlineno__"})


def is_library(thing: Any) -> bool:
    """Say whether a function, class or module comes with Python or an installed package, or is ours.

    >>> is_library(Iterator), is_library(int), is_library(lambda: 0)
    (True, True, False)
    """
    if isinstance(thing, types.FunctionType):
        return in_library(thing.__code__.co_filename)
    if isinstance(thing, types.ModuleType):
        file = getattr(thing, "__file__", None)
        return file is None or in_library(file)
    module = sys.modules.get(thing.__module__)
    if module is None or thing.__module__ == "__main__":
        return False
    return is_library(module)


def class_functions(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what a caller's class and its own bases define, in a fixed order; docstrings aside.

    >>> list(class_functions(type("Scaled", (dict,), {"__module__": "__main__", "factor": 2})))
    [('Scaled.factor', 2)]
    """
    for base in kind.__mro__:
        if is_library(base):
            continue
        for key in sorted(vars(base).keys() - _NOT_CODE - _PLAIN_CLASS):
            value = vars(base)[key]
            if not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
                yield f"{base.__qualname__}.{key}", value


def global_names(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the globals that a function's code names, with their values, in the order of their names.

    Of a caller's own module the parts that the code names count, of a library's its name: `settings.GAMMA` is a value.

    >>> space = {"FACTOR": 2, "OTHER": 3}
    >>> exec("def scaled(x): return FACTOR * x", space)
    >>> global_names(space["scaled"])
    [('FACTOR', 2)]
    """
    space, named = function.__globals__, _named(function.__code__)
    found: list[tuple[str, Any]] = []
    for name in sorted(named):
        value = space.get(name, _MISSING)
        if value is _MISSING:
            continue
        if isinstance(value, types.ModuleType) and not is_library(value):
            parts = [(part, vars(value)[part]) for part in sorted(named) if part in vars(value)]
            found += [(f"{name}.{part}", item) for part, item in parts if not isinstance(item, types.ModuleType)]
        else:
            found.append((name, value))
    return found


def code_parts(code: types.CodeType) -> list[str | bytes]:
    """Return instructions, names and constants of a code object and of those in it; line numbers are none of them.

    >>> code_parts((lambda: 1).__code__) == code_parts((lambda: 1).__code__)
    True
    >>> code_parts((lambda: 1).__code__) == code_parts((lambda: 2).__code__)
    False
    """
    nested = [part for const in code.co_consts if isinstance(const, types.CodeType) for part in code_parts(const)]
    plain = [repr(const) for const in code.co_consts if not isinstance(const, types.CodeType | frozenset)]
    sets = [repr(sorted(const, key=repr)) for const in code.co_consts if isinstance(const, frozenset)]
    return [code.co_code, repr(code.co_names), *plain, *sets, *nested]


def _named(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _named(const)
    return names
