"""What people are told whether they asked for it or not: that a result was stored before."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from tqdm import tqdm


def say(text: str) -> None:
    """Print one line on standard error, where there is one; it does not break a progress bar."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError), tqdm.external_write_mode(file=sys.stderr):
            print(f"lottery: {text}", file=sys.stderr, flush=True)


def say_stored(path: Path, stored: int, wanted: int, made: str) -> None:
    """Tell that trainings were stored before; says nothing where none was.

    Args:
        path: where they lie.
        stored: how many of the trainings that were asked for were there.
        wanted: how many were asked for.
        made: when.
    """
    if not stored:
        return
    begin = "force=True or --force starts over"
    if stored >= wanted:
        say(f"{path}: a stored result, made {made}; nothing was trained ({begin})")
    else:
        say(f"{path}: {stored} of {wanted} trainings are stored, made {made}; the others are trained now ({begin})")
