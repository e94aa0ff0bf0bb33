"""Classes and functions of a library, as `lottery list` shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def listed(found: Mapping[str, Callable[..., Any]]) -> list[dict[str, str]]:
    """Return name, first sentence and place of everything, sorted by name.

    >>> import textwrap
    >>> listed({"dedent": textwrap.dedent})[0]["source"]
    'textwrap.dedent'
    """
    return [
        {"name": name, "summary": _first_sentence(thing), "source": f"{thing.__module__}.{thing.__name__}"}
        for name, thing in sorted(found.items())
    ]


def _first_sentence(thing: Callable[..., Any]) -> str:
    text = " ".join((inspect.getdoc(thing) or thing.__name__).split())
    return text.partition(". ")[0].removesuffix(".")
