"""C code, compiled once for a machine by the compiler that is there, and kept.

A library is built for exactly this processor and kept in the user's cache directory, under a name that its source, its
flags, the processor's instructions and its own bytes decide. Where it cannot be built, `Missing` says why, and
everything runs without it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pruning.calls.users_code import one_line
from pruning.hardware import instructions

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC")
HEADERS = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120


@dataclass(frozen=True)
class Missing:
    """Why there is no library."""

    reason: str


@functools.cache
def compiled(source: Path) -> ctypes.CDLL | Missing:
    """Return the library of a C file, which may include the headers beside it and those of this folder.

    It is compiled if this machine has not done so before: one or two seconds. A compiler is `$CC`, or the first of
    `cc`, `gcc`, `clang` that is there.

    >>> isinstance(compiled(HEADERS / "nothing.c"), Missing)
    True
    """
    if not source.is_file():
        return Missing(f"{source.name} is not there")
    stem = f"{source.stem}-{_identity(source)}"
    try:
        folder = cache_folder() / "native"
        folder.mkdir(parents=True, exist_ok=True)
        return ctypes.CDLL(str(_whole(folder, stem) or _build(source, folder, stem)))
    except OSError as error:  # no home, or one that cannot be written; a file of another machine
        with tempfile.TemporaryDirectory() as folder:
            try:
                return ctypes.CDLL(str(_build(source, Path(folder), stem)))
            except _NotBuilt as refused:
                return Missing(str(refused))
            except OSError:
                return Missing(one_line(error))
    except _NotBuilt as refused:
        return Missing(str(refused))


def cache_folder() -> Path:
    """Return where what belongs to this machine is kept: under `$XDG_CACHE_HOME`, or `~/.cache`.

    Raises:
        FileNotFoundError: a user without a home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottery-tickets"
    except RuntimeError as error:
        raise FileNotFoundError("this user has no home directory") from error


class _NotBuilt(Exception):
    """In one line: why a library could not be built."""


def _identity(source: Path) -> str:
    digest = hashlib.sha256(" ".join((*FLAGS, instructions())).encode())
    for path in (source, *sorted({*source.parent.glob("*.h"), *HEADERS.glob("*.h")})):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _whole(folder: Path, stem: str) -> Path | None:
    """Return the library that was built before; one that was cut short would end the process that loads it."""
    found = sorted(folder.glob(f"{stem}-*.so"))
    return next((path for path in found if path.stem == f"{stem}-{_digest(path)}"), None)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _build(source: Path, folder: Path, stem: str) -> Path:
    """Compile into a folder of its own, then give the file its name: processes and threads may do so at once."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise _NotBuilt(f"there is no C compiler ({', '.join(_COMPILERS)})")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        new = Path(own) / "built.so"
        command = [*compiler.split(), *FLAGS, "-I", str(HEADERS), str(source), "-o", str(new), "-lm", "-lpthread"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise _NotBuilt(f"the C compiler does not run: {one_line(error)}") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise _NotBuilt(f"the C compiler refuses {source.name}: {said}")
        kept = folder / f"{stem}-{_digest(new)}.so"
        os.replace(new, kept)
    return kept
