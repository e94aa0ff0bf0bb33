"""What goes where: results on standard output (with `--json` one object, nothing else), the rest on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from lottery.cli.terminal.showing import PeopleStream
from pruning.errors import BadValue

# What a command returns to be printed on standard output: one JSON object, a path, text, or nothing.
Result = Mapping[str, Any] | Path | str | None
_IN, _OUT, _ERR = 0, 1, 2


@dataclass(frozen=True)
class Output:
    """Where results are printed: what standard output was before everything else was sent to standard error.

    Attributes:
        stream: Python's `sys.stdout`, or None where there is none.
        descriptor: a copy of the process's descriptor 1, or None where there is none.
        direct: whether the stream writes to that descriptor, and is not one that a caller put in its place.
    """

    stream: TextIO | None
    descriptor: int | None
    direct: bool

    def write(self, result: Result) -> None:
        """Print a result: a mapping as JSON (NaN becomes null), a path or text as it is; nothing for None."""
        if result is None or self.stream is None or getattr(self.stream, "closed", False):
            return
        text = _json(result, self.stream) if isinstance(result, Mapping) else str(result)
        if not self.direct or self.descriptor is None:
            print(text, file=self.stream, flush=True)
            return
        encoded = text.encode(self.stream.encoding, self.stream.errors or "strict")
        with open(self.descriptor, "wb", closefd=False) as file:
            file.write(encoded + os.linesep.encode())


def separate_output() -> Output:
    """Send to standard error, from now on, whatever anything prints, and return where results go.

    That is what the caller's model, loss or package prints, but also what a C library or a worker process writes to
    descriptor 1. `join_output` ends it; a process that is about to exit better does not, for what is printed then
    (buffers of C, `atexit`) is no result either.
    """
    stream = sys.stdout
    for each in (stream, sys.stderr):
        _flush(each)
    descriptor = None
    if _is_open(_OUT) and _is_open(_ERR):
        descriptor = os.dup(_OUT)
        os.dup2(_ERR, _OUT)
    sys.stdout = error_stream()
    return Output(stream, descriptor, _writes_to(stream, _OUT))


def join_output(output: Output) -> None:
    """End what `separate_output` began."""
    for each in (sys.stdout, output.stream):
        _flush(each)  # what was written to the old stream meanwhile is no result
    if output.descriptor is not None:
        os.dup2(output.descriptor, _OUT)
        os.close(output.descriptor)
    sys.stdout = output.stream


def open_descriptors() -> None:
    """Open the process's first three descriptors where its parent closed them (`lottery prune >&-`).

    Otherwise the next file that is opened becomes standard output, and is written to by whatever prints. Python's own
    `sys.__stdout__`, which it did not make then, is made for what writes there.
    """
    for descriptor in (_IN, _OUT, _ERR):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name, descriptor in (("__stdout__", _OUT), ("__stderr__", _ERR)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))


@contextlib.contextmanager
def any_text() -> Iterator[None]:
    """Let standard output and error take any text in this block: what they cannot encode is escaped."""
    changed: list[tuple[Any, str]] = []
    for stream in (sys.stdout, sys.stderr):
        errors, reconfigure = getattr(stream, "errors", None), getattr(stream, "reconfigure", None)
        if errors in ("strict", "surrogateescape") and reconfigure is not None and not getattr(stream, "closed", False):
            unicode = str(getattr(stream, "encoding", "")).lower().startswith("utf")
            # A path that is no valid UTF-8 is printed as the bytes that it is made of.
            reconfigure(errors="surrogateescape" if unicode else "backslashreplace")
            changed.append((stream, errors))
    try:
        yield
    finally:
        for stream, errors in changed:
            # The stream's descriptor may lead to a file of another kind by now (a pipe, in which nothing is sought).
            with contextlib.suppress(OSError):
                if not stream.closed:
                    stream.reconfigure(errors=errors)


def error_stream() -> TextIO:
    """Return standard error, or a stream that forgets where there is none or it was closed.

    >>> error_stream() is sys.stderr
    True
    """
    return _or_nowhere(sys.stderr)


def people(json_wanted: bool) -> PeopleStream:
    """Return the stream for people's text: standard output, unless that is kept for JSON; nothing steers a terminal."""
    return PeopleStream(error_stream() if json_wanted else _or_nowhere(sys.stdout))


class _Nowhere(io.TextIOBase):
    """Takes any text and forgets it."""

    def write(self, text: str, /) -> int:
        return len(text)


def _or_nowhere(stream: TextIO | None) -> TextIO:
    return cast(TextIO, _Nowhere()) if stream is None or getattr(stream, "closed", False) else stream


def _flush(stream: TextIO | None) -> None:
    # A stream without flush, closed, or with a reader that went away: there is nothing left to say on it.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        if stream is not None:
            stream.flush()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _writes_to(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    except (AttributeError, ValueError, OSError):  # no file behind it, or closed
        return False


def json_text(value: Any) -> str:
    r"""Return JSON that a terminal shows and does not obey: control characters are escaped as JSON does.

    >>> json_text("naïve \x9b")
    '"na\\u00efve \\u009b"'
    """
    from pruning.disk.files import finite_json
    from pruning.disk.plain import plain_lines

    text = json.dumps(finite_json(value), indent=2, ensure_ascii=False)
    return text if plain_lines(text) == text else json.dumps(finite_json(value), indent=2).replace("\x7f", "\\u007f")


def _json(value: Mapping[str, Any], stream: TextIO) -> str:
    """Return one JSON object, with characters that the stream cannot encode escaped as JSON does too."""
    text = json_text(value)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2)
    return text


def place(given: Any) -> Path:
    """Read where something is to be written; an empty text, which a shell makes of an unset variable, is no place.

    >>> place("runs")
    PosixPath('runs')
    """
    if not str(given).strip():
        raise BadValue("the text is empty; give a path, or leave the option out")
    return Path(given)


def whole_numbers(option: str, text: str) -> list[int]:
    """Read whole numbers between commas; raises `BadValue` for anything else.

    >>> whole_numbers("levels", "7,11")
    [7, 11]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadValue(f"--{option} takes whole numbers between commas (7,11), not {text!r}") from error
