"""Random state: seeded for a while, then given back as it was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded_everywhere(seed: int) -> Iterator[None]:
    """Seed torch (all devices in use), NumPy's global generator and Python's; restore all of them afterwards.

    >>> before = torch.random.get_rng_state()
    >>> with seeded_everywhere(3):
    ...     _ = torch.rand(2)
    >>> torch.equal(before, torch.random.get_rng_state())
    True
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    by_numpy, by_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(by_numpy)  # noqa: NPY002
            random.setstate(by_python)
