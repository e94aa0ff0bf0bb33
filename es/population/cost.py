"""What a formulation costs: arithmetic, bytes and launches, in seconds. Only ratios matter; few constants, all here."""

from __future__ import annotations

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class ProcessorRates:
    """Rates of the processor that a program is compiled for.

    Attributes:
        flops: floating-point operations per second of a large float32 matrix product.
        copy: bytes per second, read and written, of a copy.
        gather: entries per second of a gather of single numbers.
        fill: rows below which a matrix product no longer runs at full rate: `rows / (rows + fill)` of it remains.
        launch: seconds that one operation takes however small it is.
        working: bytes that one step of the evaluation may hold.
        tiles: whether small working sets run faster because a cache holds them.
    """

    flops: float
    copy: float
    gather: float
    fill: float
    launch: float
    working: int
    tiles: bool

    def product(self, batch: float, rows: float, inner: float, columns: float) -> float:
        """Return the seconds of `batch` products [rows, inner] × [inner, columns]."""
        work = 2.0 * batch * rows * inner * columns
        return self.launch + work / self.flops * (1 + self.fill / max(rows, 1)) * (1 + self.fill / max(inner, 1))

    def copied(self, entries: float) -> float:
        """Return the seconds of reading and writing this many float32 entries."""
        return self.launch + 8.0 * entries / self.copy

    def gathered(self, entries: float) -> float:
        """Return the seconds of a gather of this many single entries."""
        return self.launch + entries / self.gather


CPU = ProcessorRates(2e11, 2e10, 6e8, 4.0, 2e-5, 32 << 20, tiles=True)
"""A processor with wide vectors; only the ratio of arithmetic to bytes matters, much the same for few cores or many."""
GPU = ProcessorRates(4e13, 3e12, 3e11, 16.0, 5e-6, 4 << 30, tiles=False)
"""A large GPU, from published numbers; `machine` replaces `working` by a share of its free memory."""


def machine() -> ProcessorRates:
    """Return the machine that JAX compiles for by default."""
    if jax.default_backend() == "cpu":
        return CPU
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", 4 * GPU.working) - stats.get("bytes_in_use", 0)
    return ProcessorRates(GPU.flops, GPU.copy, GPU.gather, GPU.fill, GPU.launch, max(free // 4, 64 << 20), GPU.tiles)
