"""Text from a stranger, as it may be printed."""

from __future__ import annotations

from typing import Protocol


def plain(text: object) -> str:
    r"""Return a text in one line and without what a terminal would obey: control characters are shown as escapes.

    Names, reasons and paths that a stored file holds are printed through this. It also shows what reorders or hides
    text (directional marks, zero-width characters) and half characters, which no stream can encode.

    >>> plain("fc1.weight"), plain("red\x1b[31m\n"), plain(None)
    ('fc1.weight', 'red\\x1b[31m\\n', 'None')
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_lines(text: object) -> str:
    r"""Return the same for a text of several lines, which stay.

    >>> plain_lines("a\nb\x07")
    'a\nb\\x07'
    """
    return "\n".join(map(plain, str(text).split("\n")))


class Writable(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Take a text."""
        ...

    def flush(self) -> object:
        """Pass on what was taken."""
        ...


class PlainStream:
    """A stream of text on which nothing steers the terminal: the last place that a text passes.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write a text, with control characters as escapes."""
        self._stream.write(plain_lines(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()
