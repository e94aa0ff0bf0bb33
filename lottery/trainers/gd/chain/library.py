"""The compiled steps, as Python sees them: the structures of `steps.c`, field by field."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pruning.sparse.native.compiling import Missing, compiled
from pruning.sparse.native.products import PatternOf

_pointer, _int, _long, _double = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double


class TensorOf(ctypes.Structure):
    """`Tensor` of `steps.c`: one trained tensor."""

    _fields_ = (
        ("values", _pointer),
        ("gradients", _pointer),
        ("first", _pointer),
        ("second", _pointer),
        ("keep", _pointer),
        ("count", _long),
        ("factor", _double),
        ("trained", _int),
    )


class LayerOf(ctypes.Structure):
    """`Layer` of `steps.c`."""

    _fields_ = (
        ("inputs", _int),
        ("outputs", _int),
        ("activation", _int),
        ("weight", _int),
        ("bias", _int),
        ("rows", PatternOf),
        ("columns", PatternOf),
        ("seen", PatternOf),
        ("wanted", _pointer),
    )


class ChainOf(ctypes.Structure):
    """`Chain` of `steps.c`: a network with its optimizer."""

    _fields_ = (
        *((name, _pointer) for name in ("layers", "tensors", "scratch", "product", "threads")),
        *((name, _int) for name in ("depth", "count", "shards", "width", "batch", "loss", "optimizer", "nesterov")),
        *((name, _double) for name in ("smoothing", "momentum", "decay", "beta1", "beta2", "epsilon", "clip")),
    )


PARTS = ("gather", "forward", "loss", "backward", "wait", "update")
"""Of a step, in the order in which `steps.c` times them."""


class RunOf(ctypes.Structure):
    """`Run` of `steps.c`: some steps of a chain."""

    _fields_ = (
        *((name, _pointer) for name in ("inputs", "targets", "order", "rates")),
        ("steps", _long),
        ("done", _long),
        ("threads", _int),
        ("loss", _double),
        ("seconds", _pointer),
    )


@dataclass(frozen=True)
class Library:
    """The compiled functions, and the dense product that they call.

    Attributes:
        steps: the library of `steps.c`.
        product: address of the product of dense matrices (`sgemm_`).
        threads: address of the function that keeps that product from starting threads of its own.
    """

    steps: Any
    product: int
    threads: int


@functools.cache
def library() -> Library | Missing:
    """Return the compiled steps, or why there are none here."""
    found = compiled(Path(__file__).parent / "steps.c")
    if isinstance(found, Missing):
        return found
    found.scratch_size.restype = _long
    found.run_forward.argtypes = (_pointer, _pointer, _long, _pointer, _int)
    # PyTorch's own library of dense products; it is linked into PyTorch, so that it is there wherever it is loaded.
    try:
        held = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        addresses = [_address(held, name) for name in ("sgemm_", "MKL_Set_Num_Threads_Local")]
    except (AttributeError, OSError):  # no such function, or a system whose libraries are called otherwise
        return Missing("this build of PyTorch has no MKL")
    return Library(found, *addresses)


def _address(held: ctypes.CDLL, name: str) -> int:
    address = ctypes.cast(getattr(held, name), _pointer).value
    assert address is not None
    return address
