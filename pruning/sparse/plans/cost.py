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
        near: bytes per second from the cache that all cores share.
        cache: bytes that this cache holds.
        call: seconds that one operation takes however small it is.
        lanes: examples below which a vector of the batch is no longer full.
        fill: examples that a dense product of two matrices must have to run at half of its rate; one example alone is
            a product with a vector, and bound by bytes.
    """

    dense: float
    sparse: float
    memory: float
    near: float
    cache: float
    call: float
    lanes: int
    fill: int

    def moved(self, size: float) -> float:
        """Return the seconds that the processor needs to read `size` bytes that it uses again and again."""
        return size / (self.near if size <= self.cache else self.memory)


CPU = Machine(1.8e11, 7e10, 2.4e10, 4.5e10, 16 << 20, 4e-6, lanes=16, fill=16)
GPU_IEEE = Machine(5.2e13, 1.0e13, 4.3e12, 8e12, 50 << 20, 5e-6, lanes=32, fill=0)
GPU_TENSOR_CORES = Machine(4e14, 1.2e13, 4.3e12, 8e12, 50 << 20, 5e-6, lanes=32, fill=0)


def machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Return the rates of a device for products of this type."""
    if device.type == "cpu":
        return CPU
    tensor_cores = dtype in (torch.bfloat16, torch.float16) or torch.backends.cuda.matmul.allow_tf32
    return GPU_TENSOR_CORES if tensor_cores else GPU_IEEE


def dense_seconds(rows: int, columns: int, batch: int, rates: Machine, width: int = 4) -> float:
    """Return the seconds of a dense product [rows, columns] × [columns, batch] of numbers of `width` bytes."""
    filled = 1 + rates.fill / batch if batch > 1 else 1.0
    arithmetic = 2.0 * rows * columns * batch / rates.dense * filled
    return rates.call + max(arithmetic, rates.moved(width * (rows * columns + (columns + rows) * batch)))


def sparse_seconds(rows: int, columns: int, kept: int, batch: int, rates: Machine, width: int = 4) -> float:
    """Return the seconds of a product that reads a row of activations for each kept weight."""
    arithmetic = 2.0 * kept * max(batch, rates.lanes) / rates.sparse
    return rates.call + max(arithmetic, rates.moved((width + 4) * kept + width * (columns + rows) * batch))
