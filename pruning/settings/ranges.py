"""Ranges of settings: what a number must be, said in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pruning.errors import BadValue, shown


def check_ranges(config: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise `BadValue` for the first attribute of `config` that is outside its range, ends included, or not finite.

    Args:
        config: whose attributes are looked at; one that is None is not.
        ranges: the least and the most that each may be.

    >>> import types
    >>> check_ranges(types.SimpleNamespace(episodes=0), {"episodes": (1, 1000)})
    Traceback (most recent call last):
    pruning.errors.BadValue: episodes must be 1 or more, not 0
    """
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is None or least <= value <= most:
            continue
        wanted = f"{least:,} or more" if value < least else f"at most {most:,}"
        if not isinstance(value, int) and not math.isfinite(value):
            wanted = "finite"
        raise BadValue(f"{name} must be {wanted}, not {shown(value)}")
