"""What `lottery list` shows that no registry holds: settings, and what PyTorch brings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

Item = dict[str, str]


def settings() -> list[Item]:
    """Return every setting of a search and of its trainers, with what its documentation says and where it belongs."""
    from lottery.settings.config import SearchConfig
    from lottery.settings.fields import field_names
    from lottery.trainers import TRAINERS

    kinds = {"the search": SearchConfig, **{f"trainer {entry.name}": entry.value.config for entry in TRAINERS}}
    return [
        {"name": name, "summary": text, "source": where}
        for where, kind in kinds.items()
        for name, text in attributes(kind).items()
        if name in field_names(kind)
    ]


def optimizers() -> list[Item]:
    """Return the optimizers by name."""
    from lottery.trainers.gd.optimizers.given import CLASSES

    return _classes(CLASSES)


def schedules() -> list[Item]:
    """Return our schedules and PyTorch's schedulers by name."""
    from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
    from lottery.trainers.gd.optimizers.rates import CLASSES

    ours = [{"name": name, "summary": "a factor of lr, after warmup", "source": "lottery"} for name in SCHEDULES]
    return ours + _classes(CLASSES)


LISTS: Mapping[str, Callable[[], list[Item]]] = {
    "optimizers": optimizers,
    "schedules": schedules,
    "settings": settings,
}


def attributes(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute, each on one line.

    >>> class Thing:
    ...     '''A thing.
    ...
    ...     Attributes:
    ...         size: how large
    ...             it is.
    ...     '''
    >>> attributes(Thing)
    {'size': 'how large it is.'}
    """
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.split(r"^    (?=\w+: )", section, flags=re.MULTILINE)
    pairs = (" ".join(entry.split()).partition(": ") for entry in entries if entry.strip())
    return {name: text for name, _, text in pairs}


def _classes(kinds: Mapping[str, type[Any]]) -> list[Item]:
    return [
        {"name": name, "summary": _first_sentence(kind), "source": f"{kind.__module__}.{kind.__name__}"}
        for name, kind in sorted(kinds.items())
    ]


def _first_sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or kind.__name__).split())
    return text.partition(". ")[0].removesuffix(".")
