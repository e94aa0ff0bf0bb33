"""In which numbers a network computes while it trains."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the block within which a forward pass computes in this precision.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    half = _HALVES.get(precision)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)


def scaler_for(precision: str, device: torch.device) -> GradScaler | None:
    """Return the scaler that keeps small gradients from becoming 0; None where the precision needs none."""
    return GradScaler(device.type) if precision == "fp16" else None
