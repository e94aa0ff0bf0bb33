"""Seeds of trainings: what is random in one of them follows from its replicate and its level."""

from __future__ import annotations

import numpy as np


def job_seed(seed: int, level: int) -> int:
    """Return the seed of one level's training: another data order at each level, the same in every attempt.

    >>> job_seed(0, 1) == job_seed(0, 1), job_seed(0, 1) == job_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, level]).generate_state(1, np.uint32)[0])
