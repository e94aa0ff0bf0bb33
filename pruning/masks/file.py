"""The mask file, `mask.safetensors`: the interchange format of this toolkit, readable with safetensors alone.

One BOOL tensor for each prunable tensor, key = dotted parameter name, 1 keeps. The header's `lottery` entry is one
JSON object: `format` (version), and whatever is known of `criterion`, `scope`, `level`, `sparsity`, `framework`,
`layout`, `seed`, `init_sha256`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.disk.files import finite_json, read_tensors, write_tensors
from pruning.disk.plain_json import check_json
from pruning.errors import FileFormatError

FORMAT = 1


def write(path: Path, tensors: Mapping[str, NDArray[np.bool_]], metadata: Mapping[str, Any]) -> None:
    """Write boolean arrays and their metadata, atomically."""
    # safetensors stores tensors in an order of its own; the model's order is what tables show.
    header = json.dumps({**finite_json(metadata), "format": FORMAT, "order": list(tensors)}, sort_keys=True)
    write_tensors(path, tensors, {"lottery": header})


def read(path: Path, expected: str | None = None) -> tuple[dict[str, NDArray[np.bool_]], dict[str, Any]]:
    """Return the boolean arrays and the metadata of a mask file.

    Args:
        path: the file.
        expected: the SHA-256 that it must have, or None where nobody knows.

    Raises:
        FileFormatError: truncated, not safetensors, not written as a mask, a newer format, a tensor not BOOL, or other
            bytes than expected.
    """
    tensors, header = read_tensors(path, expected)
    if "lottery" not in header:
        raise FileFormatError(f"{path}: a safetensors file, but not a mask (its header has no 'lottery' entry)")
    try:
        metadata = check_json(json.loads(header["lottery"]))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: the 'lottery' header is not JSON ({error})") from error
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise FileFormatError(f"{path}: mask format {_shown(version)}; this version reads up to {FORMAT}")
    for name, array in tensors.items():
        if array.dtype != np.bool_:
            raise FileFormatError(f"{path}: tensor {name!r} is {array.dtype}, and a mask is bool")
    if not tensors:
        raise FileFormatError(f"{path}: a mask file without a tensor")
    if not any(array.size for array in tensors.values()):
        raise FileFormatError(f"{path}: a mask file whose tensors are all empty")
    return {name: tensors[name] for name in _order(path, metadata.pop("order", None), tensors)}, metadata


def _order(path: Path, order: Any, tensors: Mapping[str, Any]) -> list[str]:
    """Return the tensors' names in the model's order, where the file says what that is."""
    if order is None:
        return list(tensors)
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise FileFormatError(f"{path}: the header's 'order' is not a list of names")
    if sorted(order) != sorted(tensors):
        raise FileFormatError(f"{path}: the header's 'order' does not name the tensors of the file")
    return order


def _shown(value: Any) -> str:
    """Return a stranger's value in a few characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
