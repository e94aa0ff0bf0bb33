"""Files: written whole or not at all, read without trusting them.

Every write goes to a temporary name in the same folder and is renamed. Tensors travel as safetensors, everything
else as JSON; nothing here can execute what it reads.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from pruning.errors import FileFormatError, StorageError

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


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; raises `StorageError` where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON to `path`, atomically; NaN becomes null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`; raises `FileFormatError` where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: no such file") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error
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


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays and the header of a safetensors file.

    Raises:
        FileFormatError: no such file, truncated, not safetensors, or a dtype that NumPy does not have.
    """
    try:
        content = path.read_bytes()
        tensors = {name: _array(item) for name, item in sorted(safetensors.deserialize(content), key=itemgetter(0))}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, dict(header.get("__metadata__") or {})
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: no such file") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: not a readable safetensors file ({error})") from error


def _array(item: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytearray(item["data"]), _DTYPES[item["dtype"]]).reshape(item["shape"])


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an error.

    A reader therefore sees a complete folder or none. An existing `path` is an error: levels are never rewritten.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say which write failed and why."""
    return StorageError(f"{path}: cannot be written ({error.strerror or error}); what was complete is still there")


def finite(value: Any) -> Any:
    """Return a JSON value with NaN and infinities replaced by None."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
