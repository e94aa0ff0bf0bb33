"""The compiled products of sparse matrices, as Python calls them."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pruning.sparse.native.compiling import Missing, compiled

LANES = 16
"""Examples of a vector."""

_pointer, _int, _long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class PatternOf(ctypes.Structure):
    """`Pattern` of `products.h`: where the kept weights of a matrix lie."""

    _fields_ = (("starts", _pointer), ("columns", _pointer), ("at", _pointer))


class ActivationsOf(ctypes.Structure):
    """`Activations` of `products.c`."""

    _fields_ = (("data", _pointer), ("features", _long), ("by_feature", _long), ("by_example", _long))


@dataclass(frozen=True)
class Products:
    """The compiled functions.

    Attributes:
        library: of `products.c`.
        parallel: address of the function that has PyTorch's own threads call another one; None where there is none.
    """

    library: Any
    parallel: int | None

    def threads(self, operations: float) -> int:
        """Return how many threads are worth being called for this many operations; the bits do not depend on it."""
        return max(1, min(torch.get_num_threads(), int(operations / _WORTH_A_THREAD)))


# Operations below which a second thread takes longer to begin than it saves.
_WORTH_A_THREAD = 5e5


@functools.cache
def products() -> Products | Missing:
    """Return the compiled products, or why there are none here."""
    found = compiled(Path(__file__).parent / "products.c")
    if isinstance(found, Missing):
        return found
    found.product_sums.restype = found.product_slopes.restype = None
    found.product_sums.argtypes = (
        *(_pointer, _int, PatternOf, _pointer, ActivationsOf, ActivationsOf),
        *(_pointer, _pointer, _long),
    )
    found.product_slopes.argtypes = (_pointer, _int, PatternOf, _pointer, _pointer, _pointer, _long, _long, _long)
    held = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    parallel = getattr(held, "GOMP_parallel", None)
    return Products(found, ctypes.cast(parallel, _pointer).value if parallel is not None else None)
