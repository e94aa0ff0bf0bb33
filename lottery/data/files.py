"""Data from a path: a folder of IDX files or an `.npz`."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lottery.data import Data
from pruning.disk.files import machine_memory, read_bytes
from pruning.errors import DataError, FileFormatError

_IDX = {
    "x_train": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "y_train": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "x_test": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "y_test": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_path(path: Path) -> Data:
    """Read a folder of IDX files (MNIST's own names, gzipped or not) or an `.npz` (x_train, y_train, x_test, y_test).

    Raises:
        DataError: no such path, files or arrays missing, or contents that are not what their names say.

    >>> np.savez(tmp / "few.npz", x_train=np.ones((2, 3)), y_train=[0, 1], x_test=np.ones((1, 3)), y_test=[1])
    >>> found = read_path(tmp / "few.npz")
    >>> found.name, found.train[1].tolist(), found.test[1].tolist()
    ('few', [0, 1], [1])
    """
    if path.is_dir():
        arrays = {key: read_idx(_find(path, key)) for key in _IDX}
    elif path.suffix == ".npz" and path.is_file():
        arrays = _read_npz(path)
    elif path.exists():
        raise DataError(f"{path}: expected a folder of IDX files or an .npz file")
    else:
        raise DataError(f"{path}: no such file or folder")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise DataError(f"{path}: x_{part} has shape {x.shape} and y_{part} {y.shape}; one label for each input")
    train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    return Data(train=train, test=test, name=path.stem or path.name)


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """Read one IDX file, gzipped or not; raises `DataError` for anything else.

    Format: two zero bytes, a type byte, the number of axes, each length as a big-endian uint32, then the values.
    """
    try:
        content = read_bytes(path)
        if path.suffix == ".gz":
            content = _unpacked(content)
    except FileFormatError as error:
        raise DataError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise DataError(f"{path}: not an IDX file")
    dtype, axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(f"{path}: truncated in its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    count = 1
    for length in shape:
        count *= length
    if len(content) - start != count * dtype.itemsize:
        raise DataError(
            f"{path}: truncated: {count:,} values announced, {(len(content) - start) // dtype.itemsize:,} there"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _unpacked(content: bytes) -> bytes:
    """Return what a gzip file holds, one byte more than its IDX header announces at most: never a bomb."""
    start = _decompressed(content, 4)
    if len(start) < 4 or start[2] not in _IDX_TYPES:
        return start
    header = _decompressed(content, 4 + 4 * start[3])
    if len(header) < 4 + 4 * start[3]:
        return header
    size = np.dtype(_IDX_TYPES[start[2]]).itemsize * math.prod(struct.unpack(f">{start[3]}I", header[4:]))
    if size > machine_memory():
        raise OSError(f"truncated, or a bomb: it announces {size:,} bytes, more than this machine can hold")
    return _decompressed(content, len(header) + size + 1)


def _decompressed(content: bytes, most: int) -> bytes:
    """Return what the members of a gzip file hold, `most` bytes at most; a sum that is wrong raises `zlib.error`.

    The standard library's reader takes eight thousand bytes at a time, which is slower than the work itself.

    Raises:
        EOFError: a member without an end.
    """
    found: list[bytes] = []
    while content and most > 0:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        found.append(member.decompress(content, most))
        most -= len(found[-1])
        if not member.eof and most > 0:
            raise EOFError("the compressed file ends before its end marker")
        content = member.unused_data.lstrip(b"\0")  # files may be padded
    return b"".join(found)


def _find(folder: Path, key: str) -> Path:
    for stem in _IDX[key]:
        for name in (stem, f"{stem}.gz"):
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"{folder}: no {_IDX[key][0]}[.gz] (a folder of IDX files needs all four of MNIST's names)")


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > machine_memory():
            raise DataError(f"{path}: {unpacked:,} bytes of arrays, more than this machine can hold")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in _IDX if key not in archive]
            if missing:
                raise DataError(f"{path}: no {', '.join(missing)} (it has: {', '.join(archive.files) or 'nothing'})")
            return {key: archive[key] for key in _IDX}
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: an array that does not fit into memory") from error
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
