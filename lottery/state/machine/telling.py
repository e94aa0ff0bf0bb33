"""Messages that are always shown: that a result comes from an earlier run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from pruning.disk.plain import plain


def say(text: str) -> None:
    """Print one line on standard error, where there is one; it does not break a progress bar."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError), tqdm.external_write_mode(file=sys.stderr):
            print(f"lottery: {plain(text)}", file=sys.stderr, flush=True)


def say_stored(path: Path, stored: Sequence[Path], wanted: int, again: str) -> None:
    """Tell that trainings were stored before; says nothing where none was.

    Args:
        path: where they lie.
        stored: the ticket directories, of those that were asked for, that were there.
        wanted: how many were asked for.
        again: the option that starts over.
    """
    if not stored:
        return
    latest = max((folder / "config.json").stat().st_mtime for folder in stored)
    made = f"made {datetime.fromtimestamp(latest).strftime('%Y-%m-%d %H:%M')}"
    if len(stored) >= wanted:
        say(f"{path}: a stored result, {made}; nothing was trained ({again} starts over)")
    else:
        say(f"{path}: {len(stored)} of {wanted} trainings are stored, {made}; the others follow ({again} starts over)")
