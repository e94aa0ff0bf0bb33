"""Devices by name."""

from __future__ import annotations

import os

import torch

from pruning.errors import DeviceError, shown


def choose_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means; raises `DeviceError` where there is none.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {shown(name)} (known: auto, cpu, cuda, cuda:0, …)") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported (known: auto, cpu, cuda, cuda:0, …)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        there = f"has {count} CUDA devices" if count else "has no CUDA device"
        raise DeviceError(f"device {name!r}: this machine {there}; use --device cpu or auto")
    if device.type == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size, which it reads when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device
