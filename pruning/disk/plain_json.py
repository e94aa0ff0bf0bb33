"""JSON from an untrusted source: no deeper nesting and no larger numbers than this toolkit writes."""

from __future__ import annotations

import math
from typing import Any

_DEEPEST = 64
_LARGEST = 2**64


def check_json(value: Any) -> Any:
    """Return a decoded JSON value as it is; raises `ValueError` for what would only fail later, and worse.

    That is nesting beyond any record, NaN and infinities, whole numbers that fit no machine word, and texts that are
    no Unicode.

    >>> check_json({"a": [1, 2.5, "x", None]})
    {'a': [1, 2.5, 'x', None]}
    """
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:  # no recursion: the depth is the stranger's
        item, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST}")
        if isinstance(item, dict):
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("a number that is not finite")
        elif isinstance(item, int) and abs(item) > _LARGEST:
            raise ValueError("a whole number beyond 2^64")
        elif isinstance(item, str) and not _is_unicode(item):
            raise ValueError("a text with half a character (a lone surrogate)")
    return value


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
