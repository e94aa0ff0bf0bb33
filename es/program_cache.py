"""Compiled programs on disk: JAX's own cache, switched on while something evolves.

Compiling takes most of a short search, and the same search compiles the same programs. JAX keeps them in a folder, but
only where somebody names one. Here is one, in the user's cache directory, for searches alone: what else the process
compiles goes where it went before. `JAX_COMPILATION_CACHE_DIR` names another folder, and
`JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing. Nothing here is ever fatal: without the folder, programs are compiled.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache

from pruning.hardware import instructions, processor, usable_cores

# JAX's variable for the folder; one that is set, even to nothing, is somebody's choice.
FOLDER = "JAX_COMPILATION_CACHE_DIR"
# What stays as somebody set it. With a largest size JAX reads and writes under a lock; without one, a process could
# read half of what another is writing. Where XLA keeps its own choices would enter the key of every program.
SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_max_size": 2**30,
    "jax_persistent_cache_min_compile_time_secs": 0.5,
    "jax_persistent_cache_enable_xla_caches": "none",
}

_lock = threading.Lock()
_users = 0
_before: dict[str, Any] = {}


@contextmanager
def programs_on_disk() -> Iterator[None]:
    """Let JAX keep the programs that it compiles inside the block, unless the user chose a folder or none at all.

    Blocks may lie in one another, and in several threads and processes. Numbers are the same with and without.
    """
    _enter()
    try:
        with warnings.catch_warnings():
            # a damaged entry, a full disk, a folder that somebody removed: the program is compiled
            warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
            yield
    finally:
        _leave()


def program_folder() -> Path:
    """Return where programs for this machine are kept: under `$XDG_CACHE_HOME`, or `~/.cache`.

    What is compiled for one processor may crash on another, and a home directory may be shared: the name has a key of
    what the compiler looks at, instructions and cores.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    facts = (platform.system(), platform.machine(), processor(), instructions(), str(usable_cores()))
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    return base / "lottery-tickets" / f"programs-{key}"


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        if _users > 1 or not _is_left_to_us():
            return
        folder = _usable_folder()
        if folder is None:
            return
        wanted = {"jax_compilation_cache_dir": str(folder), **{n: v for n, v in SETTINGS.items() if _is_default(n)}}
        for name, value in wanted.items():
            _before[name] = getattr(jax.config, name)
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX asks once whether there is a cache


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users or not _before:
            return
        for name, value in _before.items():
            jax.config.update(name, value)
        _before.clear()
        compilation_cache.reset_cache()


def _is_left_to_us() -> bool:
    return (
        FOLDER not in os.environ
        and jax.config.jax_compilation_cache_dir is None  # pyright: ignore[reportAttributeAccessIssue]
        and bool(jax.config.jax_enable_compilation_cache)  # pyright: ignore[reportAttributeAccessIssue]
    )


def _is_default(name: str) -> bool:
    """Say whether a setting is as JAX has it."""
    return name.upper() not in os.environ and getattr(jax.config, name, None) == _DEFAULTS[name]


_DEFAULTS: dict[str, Any] = {
    "jax_compilation_cache_max_size": -1,
    "jax_persistent_cache_min_compile_time_secs": 1.0,
    "jax_persistent_cache_enable_xla_caches": "xla_gpu_per_fusion_autotune_cache_dir",
}


def _usable_folder() -> Path | None:
    """Return the folder, made, if it is the user's alone and can be written: its programs are run as they lie there."""
    try:
        folder = program_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        foreign = hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022)
        if foreign:
            return None
        with tempfile.TemporaryFile(dir=folder):
            _tidy(folder)
        return folder
    except (OSError, RuntimeError):  # no such home, a read-only disk, a file in its place
        return None


def _tidy(folder: Path) -> None:
    """Remove what a process that was killed had not written to its end: JAX writes nothing more beside it."""
    try:
        with FileLock(folder / ".lockfile", timeout=1):  # JAX's own
            for entry in folder.glob("*-cache"):
                if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
                    entry.unlink()
    except Timeout:  # busy, so somebody else's process works with it
        return
