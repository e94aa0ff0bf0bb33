"""Triton where it is installed, and an error that says what is missing where it is not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from pruning.errors import BadValue, DeviceError

triton: Any = import_module("triton") if find_spec("triton") else None
tl: Any = import_module("triton.language") if triton else None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Fused multiply-add is half of a gather's arithmetic, and not every release of triton fuses unless told to.
LAUNCH = {"enable_fp_fusion": True}


def jit(kernel: Callable[..., None]) -> Any:
    """Return the kernel for triton to compile; without triton the function itself, which nothing then calls.

    Triton decides here whether its interpreter will run the kernel: `TRITON_INTERPRET=1` counts if it is set before
    the module that holds the kernel is imported.
    """
    return triton.jit(kernel) if triton else kernel


def is_interpreted(kernel: Any) -> bool:
    """Return whether triton's interpreter runs this kernel, on the CPU."""
    return triton is not None and not isinstance(kernel, triton.JITFunction)


def runs(kernel: Any, device: torch.device) -> bool:
    """Return whether this kernel can run on tensors of this device."""
    return triton is not None and (device.type == "cuda" or is_interpreted(kernel))


def require(kernel: Any, name: str, values: torch.Tensor, inputs: torch.Tensor) -> None:
    """Raise `DeviceError` unless the kernel runs where the tensors lie, `BadValue` for types that it does not take."""
    if not runs(kernel, inputs.device):
        missing = "tensors are on " + str(inputs.device) if triton else "triton is not installed"
        raise DeviceError(f"{name} needs a CUDA device and triton (pip install 'lottery-tickets[triton]'): {missing}")
    if values.device != inputs.device:
        raise DeviceError(f"{name}: values are on {values.device} and inputs on {inputs.device}")
    for what, tensor in (("values", values), ("inputs", inputs)):
        if tensor.dtype not in DTYPES:
            raise BadValue(f"{name} takes float32, bfloat16 and float16, not {what} of {tensor.dtype}")


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which kernels are launched on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
