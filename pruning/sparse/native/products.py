"""The compiled products of sparse matrices, as Python calls them."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from pruning.sparse.native.compiling import Missing, compiled
from pruning.sparse.native.threads import Compiled, parallel

_pointer, _int, _long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class PatternOf(ctypes.Structure):
    """`Pattern` of `products.h`: where the kept weights of a matrix lie."""

    _fields_ = (("starts", _pointer), ("columns", _pointer), ("at", _pointer))


class ActivationsOf(ctypes.Structure):
    """`Activations` of `products.c`."""

    _fields_ = (("data", _pointer), ("features", _long), ("by_feature", _long), ("by_example", _long))


@functools.cache
def products() -> Compiled | Missing:
    """Return the compiled products, or why there are none here."""
    found = compiled(Path(__file__).parent / "products.c")
    if isinstance(found, Missing):
        return found
    found.product_slopes.restype = None
    found.product_sums.argtypes = (
        *(_pointer, _int, PatternOf, PatternOf, _pointer, ActivationsOf, ActivationsOf),
        *(_pointer, _long),
    )
    found.product_slopes.argtypes = (
        *(_pointer, _int, PatternOf, PatternOf, _pointer, _pointer, _pointer),
        *(_long, _long, _long),
    )
    return Compiled(found, parallel())
