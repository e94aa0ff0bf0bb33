"""CPU threads for looking at networks: one where a forward pass is too small for several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lottery.networks.flops import forward_flops

# Where a pass over a batch takes fewer operations than this, several threads win little on an idle machine, and on a
# busy one they wait for each other many times longer than they work.
_SMALL = 1_000_000_000


def threads_for(network: nn.Module, inputs: Any) -> int:
    """Return how many threads a forward pass of these inputs is worth: one, or as many as PyTorch uses now.

    A network whose operations cannot be counted gets as many as PyTorch uses.
    """
    return threads_worth(forward_flops(network, inputs))


def threads_worth(flops: float | None) -> int:
    """Return how many threads a forward pass of so many operations is worth; None stands for a number not known.

    >>> threads_worth(1e6), threads_worth(None) == torch.get_num_threads()
    (1, True)
    """
    return 1 if flops is not None and flops < _SMALL else torch.get_num_threads()


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` CPU threads while the block runs.

    >>> with using_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
