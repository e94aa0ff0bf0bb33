"""What can go wrong, one class for each kind, and the one line that a person reads.

Everything derives from `LotteryError`. A `UsageError` means that the request was wrong (the command line exits
with 2); a `RunError` means that the request was right and the run failed all the same (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LotteryError(Exception):
    """Base of every error that this toolkit raises on purpose."""

    exit_code = 1


class UsageError(LotteryError, ValueError):
    """The request was wrong: a name, a value, a shape, a file or a device."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that no registry or model knows; the message gives the nearest known ones."""


class BadValue(UsageError):
    """A value outside its range."""


class MaskMismatch(UsageError):
    """A mask whose names or shapes do not fit the model."""


class FileFormatError(UsageError):
    """A file that is truncated, foreign or hostile."""


class DataError(UsageError):
    """Data that cannot be read or learned from."""


class Untrusted(UsageError):
    """A stored file names code, and nobody asked for it to be run."""


class ConfigMismatch(UsageError):
    """A run directory that another configuration made."""


class DeviceError(UsageError):
    """A device that this machine does not have."""


class NothingToPrune(UsageError):
    """A model without a single prunable tensor."""


class RunError(LotteryError, RuntimeError):
    """The request was right, the run failed."""


class Diverged(RunError):
    """Every replicate ended in a loss or in weights that are not finite."""


class NoWinningTicket(RunError):
    """No pruned level matched the dense network; what was searched is in `search`."""

    def __init__(self, message: str, search: object) -> None:
        super().__init__(message)
        self.search = search


class RunBusy(RunError):
    """Another process is working on the same run directory."""


class StorageError(RunError):
    """The disk refused a write; whatever was complete before is still there."""


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say which write failed and why.

    >>> storage_error(Path("runs"), OSError(28, "No space left on device"))
    StorageError('runs: cannot be written (No space left on device); what was complete is still there')
    """
    return StorageError(f"{path}: cannot be written ({error.strerror or error}); what was complete is still there")


def said(error: BaseException) -> str:
    """Return the first line that an error says, or its kind where it says nothing.

    >>> said(ValueError("too small\\nat least 3")), said(KeyError())
    ('too small', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_line(error: BaseException) -> str:
    """Return what kind an error is and the first line that it says, if it says anything.

    >>> first_line(ValueError("too small\\nat least 3")), first_line(KeyError())
    ('ValueError: too small', 'KeyError')
    """
    kind = type(error).__name__
    return f"{kind}: {said(error)}" if str(error).strip() else kind


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names closest to `name`: those that it begins first, then those that look alike.

    >>> nearest("magnitud", ["random", "magnitude"])
    ['magnitude']
    """
    known = list(known)
    begun = sorted(candidate for candidate in known if name and candidate.startswith(name))
    close = difflib.get_close_matches(name, [c for c in known if c not in begun], n=most, cutoff=0.5)
    return [*begun, *close][:most]


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: on one line, and no longer than a person reads.

    >>> shown("x"), shown([0.5] * 1000, most=12)
    ("'x'", '[0.5, 0.5...')
    >>> shown(type("Matrix", (), {"__repr__": lambda self: "[[0,\\n  1]]"})())
    '[[0, 1]]'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or thousands of brackets
        text = f"a {type(value).__name__} too large to show"
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown(kind: str, name: str, known: Iterable[str], often: Iterable[str] = ()) -> UnknownName:
    """Build the error for a name that is not among the `known` ones; of close ones, those `often` meant come first.

    >>> print(unknown("criterion", "magnitud", ["random", "magnitude"]))
    unknown criterion 'magnitud': did you mean 'magnitude'? (known: magnitude, random)
    """
    names = sorted(known)
    close = list(dict.fromkeys((*nearest(str(name), often), *nearest(str(name), names))))[:3]
    hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
    return UnknownName(f"unknown {kind} {shown(name)}{hint} (known: {', '.join(names)})")
