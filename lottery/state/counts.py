"""Counts that callers hand over: one clear error where they are none."""

from __future__ import annotations

import numbers
from typing import Any

from pruning.errors import BadValue


def check_count(name: str, value: Any, least: int = 1, why: str = "") -> None:
    """Raise `BadValue` unless a value is a whole number of at least `least`; NaN, fractions and booleans are not.

    Args:
        name: the caller's name for it.
        value: the value to check.
        least: the smallest that makes sense.
        why: so much, where that says something.

    >>> check_count("examples", 3)
    >>> try:
    ...     check_count("points", 1, 2, "both ends count")
    ... except BadValue as error:
    ...     print(error)
    points must be 2 or more (both ends count), not 1
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise BadValue(f"{name} must be a whole number from {least}, not {value!r}")
    if value < least:
        raise BadValue(f"{name} must be {least} or more{f' ({why})' if why else ''}, not {value}")
