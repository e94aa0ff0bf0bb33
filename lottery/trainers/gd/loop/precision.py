"""In which numbers a network computes while it trains."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

_X86 = ("x86_64", "amd64")  # PyTorch tells what other processors can do in no public or private way
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the block within which a forward pass computes in this precision.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    half = _HALVES.get(precision)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)


def slow_half(precision: str, device: torch.device, multiplies: Callable[[], bool] | None = None) -> str | None:
    """Return why half precision is slow here, in a line; None where it is not, or nothing is known.

    Args:
        precision: as the setting says it.
        device: where to train.
        multiplies: says whether the processor multiplies bfloat16 itself; by default this one is asked.

    >>> slow_half("float32", torch.device("cpu"))
    """
    if precision != "bf16" or device.type != "cpu" or platform.machine().lower() not in _X86:
        return None
    if (multiplies or _multiplies_bfloat16)():
        return None
    return (
        "precision bf16: this processor does not multiply bfloat16 itself (AVX512-BF16, AMX), float32 is usually faster"
    )


def _multiplies_bfloat16() -> bool:
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asked if ask is not None)


def scaler_for(precision: str, device: torch.device) -> GradScaler | None:
    """Return the scaler that keeps small gradients from becoming 0; None where the precision needs none."""
    return GradScaler(device.type) if precision == "fp16" else None
