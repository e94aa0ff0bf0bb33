"""Files: written whole or not at all, read without trusting them.

Every write goes to a temporary name of its own in the same folder and is renamed. Tensors travel as safetensors,
everything else as JSON; nothing here can execute what it reads, waits for a pipe, or reads more than there can be.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from pruning.disk.directories import own_name, synchronize
from pruning.disk.plain_json import check_json
from pruning.errors import FileFormatError, storage_error

# Read by hand, because safetensors' own NumPy reader has no bfloat16.
_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}

Arrays = dict[str, np.ndarray[Any, Any]]


# More than any record, history or settings file of ours has; a larger one is not what its name says.
MOST_JSON = 64 * 2**20

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def machine_memory() -> int:
    """Return the bytes of memory that this machine has: nothing larger is ever read into it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 2**40


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file; links are followed.
        most: the largest size in bytes; by default the memory of this machine.

    Raises:
        FileFormatError: no such file, a folder, pipe, socket or device, or more than `most` bytes; nobody waits for it.
    """
    most = machine_memory() if most is None else most
    try:
        _check_regular(path, os.stat(path).st_mode)
        # Between the two calls it may have become a pipe, which would wait here for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            _check_regular(path, found.st_mode)
            if found.st_size > most:
                raise FileFormatError(f"{path}: cannot be read ({found.st_size:,} bytes, and at most {most:,} can be)")
            content = file.read(found.st_size + 1)
    except FileFormatError:
        raise
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FileFormatError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except MemoryError as error:
        raise FileFormatError(f"{path}: cannot be read (it does not fit into memory)") from error
    if len(content) != found.st_size:
        raise FileFormatError(f"{path}: cannot be read (it changed while it was read)")
    return content


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "no regular file")
        raise FileFormatError(f"{path}: cannot be read ({kind}, not a file)")


def is_there(path: Path) -> bool:
    """Say whether there is something at `path`; where that cannot be known (no permission, a loop of links), no.

    >>> is_there(tmp), is_there(tmp / "nothing")
    (True, False)
    """
    return os.path.exists(path)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically and durably; raises `StorageError` where the disk refuses."""
    temporary = own_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        synchronize(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON to `path`, atomically; NaN becomes null."""
    write_text(path, json.dumps(finite_json(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, expected: str | None = None) -> Any:
    """Return the JSON value in a file.

    Args:
        path: the file.
        expected: the SHA-256 that the file must have, or None where nobody knows.

    Raises:
        FileFormatError: no such file, no JSON, values beyond all measure, or other bytes than expected.
    """
    content = read_bytes(path, MOST_JSON)
    check_sha256(path, content, expected)
    try:
        return check_json(json.loads(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a JSON file ({error})") from error


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> None:
    """Write named arrays as safetensors, atomically.

    Args:
        path: the file.
        tensors: any shapes; dtypes that safetensors knows (bool, integers, floats, bfloat16).
        metadata: the file's string-to-string header.
    """
    contiguous = {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, metadata=metadata))


def read_tensors(path: Path, expected: str | None = None) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays and the header of a safetensors file.

    Args:
        path: the file.
        expected: the SHA-256 that the file must have, or None where nobody knows.

    Raises:
        FileFormatError: no such file, truncated, not safetensors, a dtype that NumPy does not have, or other bytes than
            expected.
    """
    content = read_bytes(path)
    check_sha256(path, content, expected)
    try:
        tensors = {name: _array(item) for name, item in sorted(safetensors.deserialize(content), key=itemgetter(0))}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, dict(header.get("__metadata__") or {})
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a readable safetensors file ({error})") from error
    except MemoryError as error:
        raise FileFormatError(f"{path}: cannot be read (it does not fit into memory)") from error


def check_sha256(path: Path, content: bytes, expected: str | None) -> None:
    """Raise `FileFormatError` for bytes that are not those that were written.

    >>> check_sha256(Path("params"), b"written", sha256(b"written"))
    >>> check_sha256(Path("params"), b"changed", sha256(b"written"))
    Traceback (most recent call last):
    pruning.errors.FileFormatError: params: not what was written (its SHA-256 is not the one in config.json)
    """
    if expected is not None and sha256(content) != expected:
        raise FileFormatError(f"{path}: not what was written (its SHA-256 is not the one in config.json)")


def _array(item: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytearray(item["data"]), _DTYPES[item["dtype"]]).reshape(item["shape"])


def finite_json(value: Any) -> Any:
    """Return a JSON value with NaN and infinities replaced by None."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return value
