"""A compiled library, and PyTorch's threads for it."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LANES = 16
"""Examples of a vector."""

# Operations below which a second thread takes longer to begin than it saves.
_WORTH_A_THREAD = 5e5


@dataclass(frozen=True)
class Compiled:
    """Compiled functions.

    Attributes:
        library: they themselves.
        parallel: address of the function that has PyTorch's own threads call another one; None where there is none.
    """

    library: Any
    parallel: int | None

    def threads(self, operations: float) -> int:
        """Return how many threads are worth being called for this many operations; the bits do not depend on it."""
        return max(1, min(torch.get_num_threads(), int(operations / _WORTH_A_THREAD)))


@functools.cache
def parallel() -> int | None:
    """Return the address of `GOMP_parallel` in the library that PyTorch's own threads are from."""
    held = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    found = getattr(held, "GOMP_parallel", None)
    return ctypes.cast(found, ctypes.c_void_p).value if found is not None else None


def check(error: int) -> None:
    """Raise `MemoryError` for an error that a compiled function returned."""
    if error:
        raise MemoryError(os.strerror(error))
