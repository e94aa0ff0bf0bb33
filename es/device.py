"""JAX devices by name."""

from __future__ import annotations

import jax

from pruning.errors import DeviceError


def choose_device(name: str) -> jax.Device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means; raises `DeviceError` where JAX has none.

    >>> choose_device("cpu").platform
    'cpu'
    """
    if name == "auto":
        return jax.devices()[0]
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise DeviceError(f"unknown device {name!r} (known: auto, cpu, cuda, cuda:0, …)")
    try:
        devices = jax.devices("gpu" if kind == "cuda" else "cpu")
    except RuntimeError as error:
        raise DeviceError(
            f"device {name!r}: JAX sees no CUDA device here (pip install 'jax[cuda13]'?); use --device cpu or auto"
        ) from error
    if int(index or 0) >= len(devices):
        raise DeviceError(f"device {name!r}: JAX sees {len(devices)} of that kind")
    return devices[int(index or 0)]
