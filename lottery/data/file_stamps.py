"""Data that lies in files: read whole once, and known again by the files' sizes and times.

A pass over a loader of images takes minutes. Where a data set names a file for every item, the hash of a pass is kept
under what made it: the files with their sizes and times, and the code and the settings of data set, sampler,
transforms and collation. In any other case a loader is read again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from lottery.state.identity import identify, short_hash
from pruning.disk.files import read_json, write_json
from pruning.errors import LotteryError

# A pass over fewer items than this takes no time.
_FEW = 1000
_NEWEST = 1000


def cached_digest(loader: DataLoader[Any], read: Callable[[], str]) -> str:
    """Return what `read` gives: from the cache, where the data lies in files that have not changed since.

    Args:
        loader: the loader to read.
        read: reads it whole and returns a hash.
    """
    stamps = file_stamps(loader.dataset)
    if stamps is None:
        return read()
    made_by = [loader.dataset, loader.sampler, loader.batch_sampler, loader.collate_fn, loader.batch_size]
    key = short_hash([stamps, *map(identify, made_by)], length=64)
    path = _cache_file()
    known = _known(path)
    if key not in known:
        known = {**dict(list(known.items())[-_NEWEST:]), key: read()}
        with contextlib.suppress(LotteryError, OSError):  # a cache that cannot be written costs time, nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
    return known[key]


def file_stamps(dataset: Any) -> str | None:
    """Return a hash of paths, sizes and times of a data set's files, or None where it does not name one for each item.

    >>> file_stamps([1, 2, 3]) is None
    True
    """
    count = len(dataset) if hasattr(dataset, "__len__") else 0
    if count < _FEW:
        return None
    found: dict[str, None] = {}
    for path in _paths(vars(dataset) if hasattr(dataset, "__dict__") else {}, 6):
        found.setdefault(path)
    stamps = []
    for path in found:
        try:
            stat = os.stat(path)
        except (OSError, ValueError):
            continue  # a text that is no path
        stamps.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return short_hash(stamps, length=64) if len(stamps) >= count else None


def _paths(value: Any, depth: int) -> Iterator[str]:
    """Yield what may be a path, in tables and lists a few levels deep, and in the data sets inside a data set."""
    if isinstance(value, str | Path):
        yield str(value)
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item, depth - 1)
    elif depth and hasattr(value, "__getitem__") and hasattr(value, "__dict__"):
        yield from _paths(vars(value), depth - 1)


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lottery-tickets" / "data.json"


def _known(path: Path) -> dict[str, str]:
    """Return the hashes in the cache; none where its file holds anything else."""
    try:
        found = read_json(path)
    except LotteryError:
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str)}
