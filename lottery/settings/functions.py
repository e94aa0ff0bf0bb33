"""Settings that are functions of the caller's: given as such, or named as `package.module:function`."""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from typing import Any

from lottery.settings.coercing import takes_function
from lottery.settings.fields import GIVEN, is_function, spoken
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, shown
from pruning.registry import import_by_path


def check_given(name: str, value: Any) -> None:
    """Raise `BadValue` for what a record says where the caller gave a function.

    Args:
        name: the name of the setting.
        value: the recorded value.

    >>> check_given("optimizer", "adam")
    >>> check_given("optimizer", GIVEN + "make")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: optimizer was a function of the caller's own (make), which no file holds: ...
    """
    if isinstance(value, str) and value.startswith(GIVEN):
        raise BadValue(
            f"{name} was a function of the caller's own ({value.removeprefix(GIVEN)}), which no file holds: give it "
            f"again, or name it as '{name}=package.module:function' to begin with"
        )


def function_of(name: str, value: Any) -> Any:
    """Return the function that a setting stands for.

    Raises:
        UnknownName: a path that cannot be imported.
        BadValue: a path to something that cannot be called.

    >>> function_of("schedule", "math:floor")(2.5), function_of("schedule", max)(1, 2)
    (2, 2)
    """
    if callable(value):
        return value
    with users_code(f"importing {name} {value!r}", BadValue):
        found = import_by_path(value, name)
    if not callable(found):
        raise BadValue(f"{name} {value!r} must be a function, not {shown(found)}")
    return found


@cache
def function_settings(kind: type) -> tuple[str, ...]:
    """Return the settings of a configuration that may be functions.

    >>> from collections.abc import Callable
    >>> function_settings(dataclasses.make_dataclass("Config", [("train", Callable[..., Any]), ("lr", float)]))
    ('train',)
    """
    hints = typing.get_type_hints(kind)
    return tuple(field.name for field in dataclasses.fields(kind) if takes_function(hints[field.name]))


def functions_in(config: Any) -> dict[str, Any]:
    """Return the caller's functions in a trainer's configuration, by setting: they are part of a run's identity.

    >>> from collections.abc import Callable
    >>> fields = [("train", Callable[..., Any]), ("lr", float)]
    >>> functions_in(dataclasses.make_dataclass("Config", fields)(max, 0.1))
    {'train': <built-in function max>}
    """
    given = {name: getattr(config, name) for name in function_settings(type(config))}
    return {name: function_of(name, value) for name, value in given.items() if is_function(value)}


def called(name: str, value: Any) -> str:
    """Return how a message calls a setting that may be a function: `optimizer 'adam'`, `optimizer 'given: make'`."""
    return f"{name} {spoken(value)!r}"
