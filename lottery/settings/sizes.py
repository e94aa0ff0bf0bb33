"""Sizes of memory as people write them."""

from __future__ import annotations

import re

from pruning.errors import BadValue, shown

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)}


def size_in_bytes(text: str, what: str = "max_memory") -> int:
    """Return how many bytes a size is: a number with a unit (`8GB`, `512 MiB`), or a number of bytes.

    Args:
        text: the size.
        what: the name of the setting, for the message.

    Raises:
        BadValue: no such size, or none at all.

    >>> size_in_bytes("8GB"), size_in_bytes("0.5 KiB"), size_in_bytes("1000000")
    (8000000000, 512, 1000000)
    >>> size_in_bytes("much")
    Traceback (most recent call last):
    pruning.errors.BadValue: max_memory must be a size like 8GB, 512MB or 1.5GiB, not 'much'
    """
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d*)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS or not (size := int(float(found[1]) * _UNITS[found[2]])):
        raise BadValue(f"{what} must be a size like 8GB, 512MB or 1.5GiB, not {shown(text)}")
    return size
