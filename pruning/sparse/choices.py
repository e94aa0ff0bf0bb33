"""Choices that were measured once, kept on disk: by hardware, versions, precision, shapes and density."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import torch

from pruning.errors import BadValue, FileFormatError
from pruning.files import read_json, write_json
from pruning.hardware import processor

FORMAT = 1
BY = ("measure", "model")


def default_cache() -> Path:
    """Return the file in which choices are kept: under `$XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottery-tickets" / "sparse-choices.json"


@dataclass(frozen=True)
class Choosing:
    """How backends are chosen.

    Attributes:
        by: `measure` times the few that the cost model thinks best on the caller's shapes; `model` asks the cost model
            alone, so that the same network has the same backends on every run.
        backend: this one everywhere, measured or not; None to choose.
        cache: the file that remembers what was measured; None for none.
        seconds: how long to time each candidate, roughly.

    Raises:
        BadValue: a way to choose that is not known.
    """

    by: str = "measure"
    backend: str | None = None
    cache: Path | None = field(default_factory=default_cache)
    seconds: float = 0.05

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise BadValue(f"backends are chosen by {' or '.join(BY)}, not by {self.by!r}")


def hardware(device: torch.device) -> dict[str, Any]:
    """Return what a measurement depends on beside the layer: processor, threads, versions, precision."""
    cuda = device.type == "cuda"
    return {
        "format": FORMAT,
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "threads": None if cuda else torch.get_num_threads(),
        "torch": torch.__version__,
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) if cuda else None,
    }


def recall(choosing: Choosing, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what was measured for a key, or None."""
    if choosing.cache is None or not choosing.cache.exists():
        return None
    return _read(choosing.cache).get(_digest(key))


def remember(choosing: Choosing, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Keep what was measured for a key; other processes may do the same meanwhile."""
    if choosing.cache is None:
        return
    choosing.cache.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(choosing.cache.with_suffix(".lock")):
        known = _read(choosing.cache) if choosing.cache.exists() else {}
        write_json(choosing.cache, {**known, _digest(key): {**found, "key": dict(key)}})


def _read(path: Path) -> dict[str, Any]:
    known = read_json(path)
    if not isinstance(known, dict):
        raise FileFormatError(f"{path}: not a file of measured choices; delete it")
    return known


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
