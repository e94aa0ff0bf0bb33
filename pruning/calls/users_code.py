"""What a caller's own code raises, in one line: what failed, why, and where in the caller's file."""

from __future__ import annotations

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pruning.errors import LotteryError, RunError, first_line

_OURS = tuple(str(Path(__file__).resolve().parents[2] / package) for package in ("lottery", "pruning", "es"))
_LIBRARIES = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})


@contextlib.contextmanager
def users_code(what: str, kind: type[LotteryError] = RunError) -> Iterator[None]:
    """Turn whatever the caller's code raises in this block into one error of ours; ours pass as they are.

    A `sys.exit` in it is a `RunError`: it must not end a search as if it had succeeded. An interrupt stays one.

    Args:
        what: that runs, as the sentence's subject: `"the metric"`, `"the model at step 3"`.
        kind: of the error: `RunError` in the middle of a run, `DataError` or `BadValue` before anything is written.

    Raises:
        LotteryError: of this kind, with the innermost line of the caller's own code that was running.

    >>> try:
    ...     with users_code("the metric"):
    ...         [][0]
    ... except RunError as error:
    ...     print(str(error).partition(" (")[0])
    the metric fails: IndexError: list index out of range
    """
    try:
        yield
    except LotteryError:
        raise
    except SystemExit as error:
        raise RunError(f"{what} fails: {one_line(error)}") from error
    except Exception as error:
        raise kind(f"{what} fails: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return an exception's kind and first line, and the last place in the caller's own code that it passed."""
    place = _users_place(error.__traceback__)
    return f"{first_line(error)}{f' ({place})' if place else ''}"


def _users_place(trace: TracebackType | None) -> str | None:
    """Return file and line of the innermost frame that is neither ours nor a library's, or None where there is none."""
    frames = [frame for frame in traceback.extract_tb(trace) if is_users_file(frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


def in_library(filename: str) -> bool:
    """Say whether a file belongs to Python, to an installed package or to this toolkit; what is typed in does not.

    >>> in_library(contextlib.__file__), in_library(__file__), in_library("/home/me/train.py"), in_library("<stdin>")
    (True, True, False, False)
    """
    if filename.startswith("<"):
        return filename.startswith("<frozen")
    return str(Path(filename).resolve()).startswith((*_OURS, *_LIBRARIES))


def is_users_file(filename: str) -> bool:
    """Say whether code in this file is the caller's own; a notebook's cell is, what Python generates is not.

    >>> is_users_file("/home/me/train.py"), is_users_file("<stdin>"), is_users_file("<string>")
    (True, True, False)
    """
    generated = filename.startswith(("<string", "<eval_with_key", "<__array_function__"))
    return not generated and not in_library(filename)
