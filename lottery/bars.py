"""A progress bar for work that is no search: on standard error, where that is a terminal, and gone when it is done."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def with_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show how many are done.

    Args:
        items: of known length, unless `total` says it.
        what: a word or two in front of the bar.
        total: how many there are.

    >>> list(with_bar([1, 2], "pairs"))
    [1, 2]
    """
    # tqdm draws nothing on a terminal that does not know its size.
    size = shutil.get_terminal_size()
    yield from tqdm(
        items,
        desc=what,
        total=total,
        leave=False,
        disable=not sys.stderr.isatty(),
        ncols=size.columns,
        nrows=size.lines,
    )
