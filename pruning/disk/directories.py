"""Folders: complete under their final name, at any time, whoever else writes to the same place.

A folder is made under a temporary name of its own, written to disk, and then gets its final name: by a rename where
there is nothing yet, by an exchange of the two names where there is. Who makes it holds a lock on it meanwhile, which
the operating system drops when the process dies: what nobody holds is a leftover.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock

from pruning.errors import LotteryError, StorageError, storage_error

try:
    import fcntl
except ImportError:  # a system without such locks: leftovers are then left alone
    fcntl = None

_HERE = -100  # AT_FDCWD: paths are relative to the current folder, as everywhere
_EXCHANGE = 2  # RENAME_EXCHANGE
# How often a folder may be replaced by others while it is looked at.
_MOST_SWAPS = 100

Found = TypeVar("Found")


def own_name(path: Path) -> Path:
    """Return a temporary name beside `path` that no other process, and no other call, uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def synchronize(path: Path) -> None:
    """Have a file's content, or the names in a folder, written to disk, where the file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to do for folders
            raise
    finally:
        os.close(handle)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an error.

    A reader therefore sees a complete folder or none. An existing `path` is an error: levels are never rewritten.
    """
    with _becoming(path, os.rename) as temporary:
        yield temporary


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path`, which may exist, when the block ends without an error.

    A reader sees the old folder or the new one, complete. Of several processes that do this at once the last one wins.
    Where the file system cannot exchange two names, the old folder steps aside first, and for that moment there is
    none.
    """
    with _becoming(path, _exchange) as temporary:
        yield temporary


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove, of these temporary folders, those that nobody holds: their processes were killed.

    >>> (tmp / "leftover").mkdir()
    >>> remove_leftovers([tmp / "leftover"])
    >>> (tmp / "leftover").exists()
    False
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            handle = _hold(folder)
            if handle is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


@contextmanager
def _becoming(path: Path, give_name: Callable[[Path, Path], None]) -> Iterator[Path]:
    temporary = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(_leftovers_beside(path))
        temporary, handle = _own_folder(path)
        try:
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in files:
                    synchronize(Path(folder, name))
                synchronize(Path(folder))
            give_name(temporary, path)
            synchronize(path.parent)
        finally:
            # After an exchange this is the old folder.
            shutil.rmtree(temporary, ignore_errors=True)
            if handle is not None:
                os.close(handle)
    except OSError as error:
        raise storage_error(path, error) from error


def _own_folder(path: Path) -> tuple[Path, int | None]:
    """Make a temporary folder and hold it; another process may have taken it for a leftover before it was held."""
    while True:
        temporary = own_name(path)
        temporary.mkdir()
        try:
            handle = _hold(temporary)
        except FileNotFoundError:
            continue
        except OSError:  # a file system without locks: there nobody removes what he cannot hold
            return temporary, None
        if handle is not None and temporary.is_dir():
            return temporary, handle
        if handle is not None:
            os.close(handle)


def _hold(folder: Path) -> int | None:
    """Return an open handle that holds a folder, or None where another process does; a dead one holds nothing."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no such locks")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


def _leftovers_beside(path: Path) -> list[Path]:
    """Return the temporary folders that were to become `path`, living or dead."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+-[0-9a-f]+\.)?tmp")
    return [path.parent / name for name in sorted(os.listdir(path.parent)) if pattern.fullmatch(name)]


def _exchange(temporary: Path, path: Path) -> None:
    """Give a complete folder its name; what had that name before has the temporary one afterwards, or is gone."""
    while True:
        try:
            if not os.path.lexists(path):
                os.rename(temporary, path)
            elif not exchange_names(temporary, path):
                _step_aside(temporary, path)
            return
        except OSError as error:
            # Another process was faster between the look and the rename: look again.
            faster = error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
            if not faster or not temporary.is_dir():
                raise


def exchange_names(one: Path, other: Path) -> bool:
    """Exchange two names in one indivisible step; returns whether this system and file system can."""
    function = _renameat2()
    if function is None:
        return False
    if function(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))


@functools.cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):  # no Linux, or a C library from before 2018
        return None


def _step_aside(temporary: Path, path: Path) -> None:
    """Exchange two folders in two steps, one process at a time."""
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        aside = own_name(path)
        os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def while_it_stands(folder: Path, look: Callable[[], Found]) -> Found:
    """Return the result of `look` in a folder; it is called again where another process has replaced the folder.

    Raises:
        LotteryError, FileNotFoundError: what `look` raised in a folder that nobody replaced.
        StorageError: the folder is replaced again and again.

    >>> (tmp / "run").mkdir()
    >>> while_it_stands(tmp / "run", lambda: sorted(tmp.iterdir())) == [tmp / "run"]
    True
    """
    for _ in range(_MOST_SWAPS):
        before = _identity(folder)
        try:
            return look()
        except (LotteryError, FileNotFoundError):
            if _identity(folder) == before:
                raise
    raise StorageError(f"{folder}: other processes replace this folder faster than it can be read")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return a key that changes when another folder gets this name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
