"""The compiled convolutions with sparse kernels, as Python calls them."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from pruning.sparse.native.compiling import Missing, compiled
from pruning.sparse.native.threads import Compiled, parallel

_pointer, _int, _long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class ImagesOf(ctypes.Structure):
    """`Images` of `convolutions.c`."""

    _fields_ = (
        ("data", _pointer),
        *((name, _long) for name in ("channels", "height", "width")),
        *((name, _long) for name in ("by_example", "by_channel", "by_row", "by_column")),
    )


class FrameOf(ctypes.Structure):
    """`Frame` of `convolutions.c`: zeros around an image."""

    _fields_ = tuple((name, _long) for name in ("height", "width", "top", "left"))


class ShiftsOf(ctypes.Structure):
    """`Shifts` of `convolutions.c`: which pixels the kept weights read."""

    _fields_ = (("starts", _pointer), ("offsets", _pointer), ("at", _pointer))


@functools.cache
def convolutions() -> Compiled | Missing:
    """Return the compiled convolutions, or why there are none here."""
    found = compiled(Path(__file__).parent / "convolutions.c")
    if isinstance(found, Missing):
        return found
    found.convolution_pack.restype = None
    found.convolution_pack.argtypes = (_pointer, _int, ImagesOf, FrameOf, _long, _pointer)
    found.convolution_sums.argtypes = (_pointer, _int, ShiftsOf, _pointer, _pointer, _long, _long, ImagesOf, _long)
    found.convolution_slopes.argtypes = (
        *(_pointer, _int, ShiftsOf, _pointer, _long, _long, _pointer),
        *(_long,) * 8,
        _pointer,
    )
    return Compiled(found, parallel())
