"""Kinds of JSON values: small checks that build larger ones, to say in one line what is wrong with a stored file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

# Of a place ("metric.name") and the value there; raises `ValueError` for one of another kind.
Check = Callable[[str, Any], None]


def kind(words: str, fits: Callable[[Any], bool]) -> Check:
    """Return a check of one value.

    >>> kind("a text", lambda value: isinstance(value, str))("metric.name", 3)
    Traceback (most recent call last):
    ValueError: metric.name must be a text, not 3
    """

    def check(where: str, value: Any) -> None:
        if not fits(value):
            raise ValueError(f"{where} must be {words}, not {_shown(value)}")

    return check


def optional(check: Check) -> Check:
    """Return a check that null passes too."""

    def check_optional(where: str, value: Any) -> None:
        if value is not None:
            check(where, value)

    return check_optional


def table(required: Mapping[str, Check], others: Mapping[str, Check] | None = None) -> Check:
    """Return a check of an object: these entries must be there, those are checked where they are, all others pass."""
    checks = {**required, **(others or {})}

    def check_table(where: str, value: Any) -> None:
        _object(where, value)
        missing = [name for name in required if name not in value]
        if missing:
            raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
        for name, check in checks.items():
            if name in value:
                check(_within(where, name), value[name])

    return check_table


def table_of(check: Check) -> Check:
    """Return a check of an object whose values are all of one kind."""

    def check_values(where: str, value: Any) -> None:
        _object(where, value)
        for name, item in value.items():
            check(_within(where, repr(name)), item)

    return check_values


def list_of(check: Check) -> Check:
    """Return a check of a list whose items are all of one kind.

    >>> list_of(kind("a text", lambda value: isinstance(value, str)))("names", ["a", 3])
    Traceback (most recent call last):
    ValueError: names.item 1 must be a text, not 3
    """

    def check_items(where: str, value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"{where or 'it'} must be a list, not {_shown(value)}")
        for number, item in enumerate(value):
            check(_within(where, f"item {number}"), item)

    return check_items


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(least: int = 0, most: int = 2**63 - 1) -> Check:
    """Return a check of a whole number between two bounds, both included."""
    words = f"a whole number of {least:,} or more" if most == 2**63 - 1 else f"a whole number from {least} to {most:,}"
    return kind(words, lambda value: type(value) is int and least <= value <= most)


text = kind("a text", lambda value: isinstance(value, str))
truth = kind("true or false", lambda value: isinstance(value, bool))
number = kind("a finite number", _is_number)
fraction = kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)


def _object(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} must be an object, not {_shown(value)}")


def _within(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
