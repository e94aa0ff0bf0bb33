"""Choices that were measured once, kept on disk: by hardware, versions, precision, shapes and density."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import torch

from pruning.disk.files import read_json, write_json
from pruning.errors import BadValue, FileFormatError, StorageError, nearest
from pruning.hardware import processor

FORMAT = 2
BY = ("measure", "model")


def _default_cache() -> Path:
    """Return the file in which choices are kept: under `$XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottery-tickets" / "sparse-choices.json"


@dataclass(frozen=True)
class Choosing:
    """How backends are chosen.

    Attributes:
        by: `measure` times the few that the cost model thinks best on the caller's shapes; `model` asks the cost model
            alone, so that the same network has the same backends on every run.
        backend: this one everywhere, measured or not; None to choose.
        cache: the file that keeps measurements; None for none.
        seconds: how long to time each candidate, roughly.

    Raises:
        BadValue: a way to choose that is not known.
    """

    by: str = "measure"
    backend: str | None = None
    cache: Path | None = field(default_factory=_default_cache)
    seconds: float = 0.05

    def __post_init__(self) -> None:
        if self.by not in BY:
            close = nearest(self.by, BY)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise BadValue(f"backends are chosen by {' or '.join(BY)}, not by {self.by!r}{hint}")
        if not 0 <= self.seconds < math.inf:
            raise BadValue(f"seconds to time a candidate are finite and not negative, not {self.seconds}")
        if self.cache is not None and not isinstance(self.cache, Path):
            raise BadValue(f"the cache is a pathlib.Path or None, not {self.cache!r}")


def hardware(device: torch.device) -> dict[str, Any]:
    """Return everything but the layer that a measurement depends on: processor, threads, versions, precision."""
    cuda = device.type == "cuda"
    return {
        "format": FORMAT,
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "threads": None if cuda else torch.get_num_threads(),
        "torch": torch.__version__,
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) if cuda else None,
    }


@dataclass(frozen=True)
class Known:
    """What was measured of a layer.

    Attributes:
        backends: the backends of each sparse weight, by its name in the layer.
        winner: `dense` or `sparse`.
        dense: seconds of the layer as it was.
        sparse: seconds of its sparse form with these backends.
    """

    backends: dict[str, str]
    winner: str
    dense: float
    sparse: float


def recall(choosing: Choosing, key: Mapping[str, Any]) -> Known | None:
    """Return the measurement for a key, or None; an entry that was changed after it was written counts as none.

    >>> choosing = Choosing(cache=tmp / "choices.json")
    >>> remember(choosing, {"layer": "Linear"}, Known({"weight": "csr"}, "sparse", 2.0, 1.0))
    >>> recall(choosing, {"layer": "Linear"}), recall(choosing, {"layer": "Conv2d"})
    (Known(backends={'weight': 'csr'}, winner='sparse', dense=2.0, sparse=1.0), None)
    """
    if choosing.cache is None or not os.path.lexists(choosing.cache):
        return None
    entry = _read(choosing.cache).get(_digest(key))
    return Known(**{name: entry[name] for name in _NAMES}) if entry is not None else None


def remember(choosing: Choosing, key: Mapping[str, Any], found: Known) -> None:
    """Keep the measurement for a key; other processes may do the same at the same time.

    >>> choosing = Choosing(cache=tmp / "choices.json")
    >>> remember(choosing, {"layer": "Linear"}, Known({"weight": "csr"}, "sparse", 2.0, 1.0))
    >>> [entry["key"] for entry in json.loads(choosing.cache.read_text()).values()]
    [{'layer': 'Linear'}]
    """
    if choosing.cache is None:
        return
    entry = {**asdict(found), "key": json.loads(json.dumps(key))}
    try:
        choosing.cache.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(choosing.cache.with_suffix(".lock")):
            known = _read(choosing.cache) if os.path.lexists(choosing.cache) else {}
            write_json(choosing.cache, {**known, _digest(key): {**entry, "sha256": _digest(entry)}})
    except (OSError, StorageError) as error:
        _warn(f"{choosing.cache}: what was measured cannot be kept ({error}); Choosing(cache=None) does not try")


_NAMES = ("backends", "winner", "dense", "sparse")
# No cache of anybody's is so large; what is, is something else.
_LARGEST = 2**26


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries that are as they were written.

    A file that cannot be read counts as empty, is said to be, and is written anew.
    """
    known, reason = None, f"{path}: not a file of measured choices"
    if path.is_file() and path.stat().st_size <= _LARGEST:  # anything else may be endless, or wait for somebody
        try:
            known = read_json(path)
        except FileFormatError as error:
            reason = str(error)
    if isinstance(known, dict):
        return {digest: entry for digest, entry in known.items() if _as_written(digest, entry)}
    _warn(f"{reason}; what was measured before is measured again")
    return {}


def _as_written(digest: str, entry: Any) -> bool:
    """Say whether an entry was written by this toolkit and is unchanged: both of its digests fit."""
    if not isinstance(entry, dict) or entry.keys() != {*_NAMES, "key", "sha256"}:
        return False
    try:
        content = {name: value for name, value in entry.items() if name != "sha256"}
        return digest == _digest(entry["key"]) and entry["sha256"] == _digest(content)
    except (RecursionError, ValueError):  # deeper than JSON is written, or text that is none
        return False


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
