"""Settings that are functions of the caller's: given as such, or named as `package.module:function`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lottery.settings.fields import GIVEN, is_function, spoken
from lottery.settings.trust import check_stored
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, shown, unknown
from pruning.registry import import_by_path

# Settings that may be functions, of any trainer.
FUNCTIONS = ("optimizer", "schedule", "train", "evaluate", "strategy")


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


def functions_in(config: Any) -> dict[str, Any]:
    """Return the caller's functions in a trainer's configuration, by setting: they are part of a run's identity.

    >>> functions_in(dataclasses.make_dataclass("Config", ["optimizer", "lr"])(max, 0.1))
    {'optimizer': <built-in function max>}
    """
    names = [field.name for field in dataclasses.fields(config) if field.name in FUNCTIONS]
    given = {name: getattr(config, name) for name in names}
    return {name: function_of(name, value) for name, value in given.items() if is_function(value)}


def check_stored_functions(settings: Mapping[str, Any], where: object, trust: bool) -> None:
    """Raise `Untrusted` for stored settings that name a caller's function, where nobody asked for it to run.

    Args:
        settings: as a record holds them.
        where: the ticket or run, for the message.
        trust: whether the user wants what the record names to be run.

    >>> check_stored_functions({"optimizer": "theirs:make"}, "runs/a", trust=True)
    >>> check_stored_functions({"optimizer": "theirs:make"}, "runs/a", trust=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.Untrusted: ...
    """
    for name in FUNCTIONS:
        value = settings.get(name)
        if isinstance(value, str) and not value.startswith(GIVEN):
            check_stored(name, value, where, trust)


def functions_for(functions: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some functions that a search with these settings was given.

    Args:
        functions: by setting; None for none.
        settings: the settings of the search, as its record holds them.

    Raises:
        UnknownName: a setting that is no function of any trainer.

    >>> functions_for({"optimizer": max, "strategy": min}, {"optimizer": "given: max"})
    {'optimizer': <built-in function max>}
    """
    for name in functions or {}:
        if name not in FUNCTIONS:
            raise unknown("function", name, FUNCTIONS)
    return {name: value for name, value in (functions or {}).items() if is_function(settings.get(name))}


def called(name: str, value: Any) -> str:
    """Return how a message calls a setting that may be a function: `optimizer 'adam'`, `optimizer 'given: make'`."""
    return f"{name} {spoken(value)!r}"
