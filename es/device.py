"""JAX devices by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import jax

from es.program_cache import programs_on_disk
from pruning.errors import DeviceError, shown

Device: TypeAlias = Any
"""A `jax.Device`."""


def choose_devices(name: str) -> tuple[Device, ...]:
    """Return the devices that a name means: `auto` (JAX's best kind), a whole kind (`cpu`, `cuda`), or one (`cuda:1`).

    Raises:
        DeviceError: a name that means none, or a device that JAX does not see here.

    >>> choose_devices("cpu")[0].platform
    'cpu'
    """
    if name == "auto":
        return tuple(jax.devices())
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise DeviceError(f"unknown device {shown(name)} (known: auto, cpu, cuda, cuda:0, …)")
    try:
        devices = jax.devices("gpu" if kind == "cuda" else "cpu")
    except RuntimeError as error:
        raise DeviceError(
            f"device {name!r}: JAX sees no CUDA device here (pip install 'jax[cuda13]'?); use --device cpu or auto"
        ) from error
    if not index:
        return tuple(devices)
    if int(index) >= len(devices):
        raise DeviceError(f"device {name!r}: JAX sees {len(devices)} of that kind")
    return (devices[int(index)],)


@contextmanager
def computing_on(device: Device, precision: str) -> Iterator[None]:
    """Let JAX compute on a device inside the block, with products of matrices as `precision` says, and keep programs.

    All of a search computes so: what is compiled in one way is not found again in another.

    >>> with computing_on(choose_devices("cpu")[0], "float32"):
    ...     jax.config.jax_default_matmul_precision
    'highest'
    """
    products = "highest" if precision == "float32" else "default"
    with programs_on_disk(), jax.default_matmul_precision(products), jax.default_device(device):
        yield


def as_many_as_divide(devices: Sequence[Device], population: int) -> tuple[Device, ...]:
    """Return the most devices that can have equally many members each."""
    return tuple(devices[: next(n for n in range(len(devices), 0, -1) if population % n == 0)])
