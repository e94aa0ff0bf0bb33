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

from pruning.errors import FileFormatError
from pruning.files import read_tensors, write_tensors

FORMAT = 1


def write(path: Path, tensors: Mapping[str, NDArray[np.bool_]], metadata: Mapping[str, Any]) -> None:
    """Write boolean arrays and their metadata, atomically."""
    # safetensors stores tensors in an order of its own; the model's order is what tables show.
    header = json.dumps({**metadata, "format": FORMAT, "order": list(tensors)}, sort_keys=True)
    write_tensors(path, tensors, {"lottery": header})


def read(path: Path) -> tuple[dict[str, NDArray[np.bool_]], dict[str, Any]]:
    """Return the boolean arrays and the metadata of a mask file.

    Raises:
        FileFormatError: truncated, not safetensors, not written as a mask, a newer format, or a tensor not BOOL.
    """
    tensors, header = read_tensors(path)
    if "lottery" not in header:
        raise FileFormatError(f"{path}: a safetensors file, but not a mask (its header has no 'lottery' entry)")
    try:
        metadata = json.loads(header["lottery"])
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: the 'lottery' header is not JSON ({error})") from error
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if not isinstance(version, int) or version > FORMAT:
        raise FileFormatError(f"{path}: mask format {version!r}; this version reads up to {FORMAT}")
    for name, array in tensors.items():
        if array.dtype != np.bool_:
            raise FileFormatError(f"{path}: tensor {name!r} is {array.dtype}, and a mask is bool")
    if not tensors:
        raise FileFormatError(f"{path}: a mask file without a tensor")
    order = metadata.pop("order", None)
    if isinstance(order, list) and sorted(map(str, order)) == sorted(tensors):
        tensors = {name: tensors[name] for name in order}
    return tensors, metadata
