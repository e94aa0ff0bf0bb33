"""What a sparse product costs, roughly: arithmetic, bytes and calls, in seconds. Only ratios matter.

The model shortlists what is worth measuring, and decides alone where measurements are not wanted. Constants are all
here. Those of the CPU were fitted to `results/sparse-forward`; those of the GPU are published numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """Rates of a processor.

    Attributes:
        dense: floating-point operations per second of a large dense product.
        sparse: floating-point operations per second on gathered rows of activations (a multiplication and an addition
            for each kept weight and example).
        memory: bytes per second from memory.
        cache: bytes that stay close to the processor between uses.
        call: seconds that one operation takes however small it is.
        lanes: examples below which a vector of the batch is no longer full.
    """

    dense: float
    sparse: float
    memory: float
    cache: float
    call: float
    lanes: int


CPU = Machine(dense=1.5e11, sparse=7e10, memory=2.4e10, cache=1 << 20, call=4e-6, lanes=16)
GPU_IEEE = Machine(dense=5.2e13, sparse=1.0e13, memory=4.3e12, cache=50 << 20, call=5e-6, lanes=32)
GPU_TENSOR_CORES = Machine(dense=4e14, sparse=1.2e13, memory=4.3e12, cache=50 << 20, call=5e-6, lanes=32)


def machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Return the rates of a device for products of this type."""
    if device.type == "cpu":
        return CPU
    tensor_cores = dtype in (torch.bfloat16, torch.float16) or torch.backends.cuda.matmul.allow_tf32
    return GPU_TENSOR_CORES if tensor_cores else GPU_IEEE


def dense_seconds(rows: int, columns: int, batch: int, rates: Machine, width: int = 4) -> float:
    """Return the seconds of a dense product [rows, columns] × [columns, batch] of numbers of `width` bytes."""
    arithmetic = 2.0 * rows * columns * batch / rates.dense
    moved = width * (rows * columns + columns * batch + rows * batch) / rates.memory
    return rates.call + max(arithmetic, moved)


def sparse_seconds(rows: int, columns: int, kept: int, batch: int, rates: Machine, width: int = 4) -> float:
    """Return the seconds of a product that reads a row of activations for each kept weight."""
    arithmetic = 2.0 * kept * max(batch, rates.lanes) / rates.sparse
    moved = ((width + 4) * kept + width * (columns + rows) * batch) / rates.memory
    return rates.call + max(arithmetic, moved)
