"""A stream of people's text: tables as wide as the terminal and in its colours, or plain where there is none."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from lottery.results.columns import Shown, for_terminal
from pruning.disk.plain import PlainStream

# Narrower than this nothing is fitted: words would break, and a terminal breaks them as well.
_NARROWEST = 40


class PeopleStream:
    """What people read: nothing in the texts steers the terminal.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._plain = stream, PlainStream(stream)

    def write(self, text: str, /) -> int:
        """Write a text, with control characters as escapes."""
        return self._plain.write(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._plain.flush()

    def show(self, shown: Shown) -> None:
        """Print tables and texts: fitted to the width of a terminal, elsewhere in their natural width."""
        if not is_terminal(self._stream):
            print(shown, file=self, flush=True)
            return
        # Cells and texts are made plain one by one: the only control characters are those of our styles.
        text = for_terminal(shown, room_of(self._stream), colours(os.environ))
        print(text, file=self._stream, flush=True)


def is_terminal(stream: Any) -> bool:
    """Say whether a stream is a terminal; one that cannot say so is none.

    >>> is_terminal(object())
    False
    """
    try:
        return bool(stream.isatty())
    except (AttributeError, TypeError, ValueError, OSError):
        return False


def room_of(stream: Any) -> int:
    """Return the width of a terminal in characters: what COLUMNS says, or the terminal itself, or 80.

    >>> room_of(object()) >= 40
    True
    """
    try:
        own = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, ValueError, OSError):  # no file, or one that has no width
        own = 0
    said = os.environ.get("COLUMNS", "")
    wanted = int(said) if said.isdecimal() and int(said) else own or shutil.get_terminal_size().columns
    return max(wanted, _NARROWEST)


def colours(variables: Mapping[str, str]) -> bool:
    """Say whether a terminal is to have colours: not with NO_COLOR (no-color.org), nor where it knows none.

    >>> colours({"TERM": "xterm"}), colours({"TERM": "xterm", "NO_COLOR": "1"}), colours({"TERM": "dumb"})
    (True, False, False)
    """
    if variables.get("NO_COLOR") or variables.get("TERM") in ("dumb", "unknown"):
        return False
    # The old console of Windows shows the codes themselves; what came after it says its name.
    return sys.platform != "win32" or bool(variables.get("WT_SESSION") or variables.get("TERM"))
