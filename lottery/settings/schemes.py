"""Initializers and repairs as settings name them: by name, with settings of their own of the right types."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lottery.settings.coercing import coerced
from pruning.initializers import Draw, Initializer, get_initializer
from pruning.repairs import Mend, Repair, get_repair


def initializer_named(name: str | Draw, params: Mapping[str, Any] | None = None) -> Initializer:
    """Return an initializer with its settings.

    Raises:
        UnknownName: no such initializer, or a setting that it does not have.
        BadValue: a value of another type than its setting.

    >>> initializer_named("unit-scaled", {"gain": 1}).to
    {'gain': 1}
    >>> initializer_named("low-rank", {"rank": "two"})
    Traceback (most recent call last):
    pruning.errors.BadValue: init_params.rank must be a whole number, not 'two'
    """
    found = get_initializer(name, params)
    return replace(found, to=_typed("init", found.draw, found.to))


def repair_named(name: str | Mend, params: Mapping[str, Any] | None = None) -> Repair:
    """Return a repair with its settings; raises as `initializer_named`.

    >>> repair_named("isometry", {"steps": 50.0}).to
    {'steps': 50}
    """
    found = get_repair(name, params)
    return replace(found, to=_typed("repair", found.mend, found.to))


def _typed(kind: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}  # a user's own function may name types that are not there, or be an object
    return {name: _one(f"{kind}_params.{name}", value, hints.get(name, Any)) for name, value in given.items()}


def _one(name: str, value: Any, hint: Any) -> Any:
    # An activation may be a function wherever its name may stand.
    if hint is Any or callable(value):
        return value
    found = coerced(name, value, hint)
    # 1 stays 1 where a number is wanted: records and labels show what was written.
    return value if isinstance(value, int) and isinstance(found, float) else found
