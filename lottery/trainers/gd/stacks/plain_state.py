"""What a network or a loss holds beside tensors: where a call changes it, a recording of a call is wrong."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sized
from typing import Any

from torch import nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}


def plain_state(*held: Any) -> dict[str, object]:
    """Return the numbers, names and lengths that these objects hold, by place.

    Args:
        *held: modules with all they contain; functions with what they enclose; other objects with their attributes.

    >>> def counting():
    ...     calls = 0
    ...     def loss():
    ...         nonlocal calls
    ...         calls += 1
    ...     return loss
    >>> loss = counting()
    >>> before = plain_state(loss)
    >>> loss()
    >>> before == plain_state(loss), plain_state(nn.ReLU()) == plain_state(nn.ReLU())
    (False, True)
    """
    found: dict[str, object] = {}
    for number, each in enumerate(held):
        for place, value in _within(each):
            found[f"{number}.{place}"] = _shown(value)
    return found


def _within(held: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(held, nn.Module):
        for name, module in held.named_modules():
            for key, value in vars(module).items():
                if key not in _OF_MODULES:
                    yield f"{name}.{key}", value
    elif isinstance(held, functools.partial):
        yield from _within(held.func)
    elif isinstance(held, types.FunctionType):
        for name, cell in zip(held.__code__.co_freevars, held.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
    else:
        yield from vars(held).items() if hasattr(held, "__dict__") else ()


def _shown(value: Any) -> object:
    if isinstance(value, _PLAIN):
        return repr(value)
    return (id(value), len(value)) if isinstance(value, Sized) and isinstance(value, list | dict | set) else id(value)
