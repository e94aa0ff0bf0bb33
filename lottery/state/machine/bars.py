"""A progress bar for work that is no search: on standard error, where that is a terminal, and gone when it is done."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bars_wanted(quiet: bool = False) -> bool:
    """Say whether bars are drawn: on a standard error that is a terminal, unless somebody wants quiet.

    A program may have replaced standard error by a logger, closed it, or have none at all (`pythonw`).
    """
    try:
        return not quiet and sys.stderr is not None and bool(sys.stderr.isatty())
    except (AttributeError, TypeError, ValueError, OSError):
        return False


def terminal_size() -> dict[str, Any]:
    """Return columns and rows as tqdm takes them: on a terminal that does not know its size it draws nothing.

    >>> sorted(terminal_size()), min(terminal_size().values()) > 0
    (['ncols', 'nrows'], True)
    """
    size = shutil.get_terminal_size()
    return {"ncols": max(size.columns, 1), "nrows": max(size.lines, 1)}


def with_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show how many are done.

    Args:
        items: of known length, unless `total` says it.
        what: a word or two in front of the bar.
        total: how many there are.

    >>> list(with_bar([1, 2], "pairs"))
    [1, 2]
    """
    if not bars_wanted():
        yield from items
        return
    yield from tqdm(items, desc=what, total=total, leave=False, **terminal_size())
