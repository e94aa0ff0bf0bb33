"""Random state: seeded for a while, then given back as it was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_torch(seed: int) -> None:
    """Seed torch's generators on every device, as `torch.manual_seed` does.

    Where there is no other device than the CPU, `torch.manual_seed` notes for one that may come who called it, line by
    line: a hundred times what seeding takes, and a search seeds many times.

    >>> with torch.random.fork_rng(devices=[]):
    ...     seed_torch(3)
    ...     torch.initial_seed()
    3
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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
        seed_torch(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(by_numpy)  # noqa: NPY002
            random.setstate(by_python)
