"""Seeds: what is random in a search follows from its replicates and levels, or from a seed of its own."""

from __future__ import annotations

import numpy as np

from lottery.settings.config import SearchConfig


def job_seed(seed: int, level: int) -> int:
    """Return the seed of one level's training: another data order at each level, the same in every attempt.

    >>> job_seed(0, 1) == job_seed(0, 1), job_seed(0, 1) == job_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, level]).generate_state(1, np.uint32)[0])


def weights_seed(config: SearchConfig, seed: int) -> int:
    """Return the seed of a replicate's first weights.

    >>> weights_seed(SearchConfig(), 2), weights_seed(SearchConfig(seed_weights=7), 2)
    (2, 7)
    """
    return seed if config.seed_weights is None else config.seed_weights


def mask_seed(config: SearchConfig, seed: int) -> int:
    """Return the seed of what is random in a replicate's masks.

    >>> mask_seed(SearchConfig(), 2), mask_seed(SearchConfig(seed_mask=7), 2)
    (2, 7)
    """
    return seed if config.seed_mask is None else config.seed_mask


def data_seed(config: SearchConfig, seed: int) -> int:
    """Return the seed of what is random in a replicate's trainings; each level has its own of it (`job_seed`).

    >>> data_seed(SearchConfig(), 2), data_seed(SearchConfig(seed_data=7), 2)
    (2, 7)
    """
    return seed if config.seed_data is None else config.seed_data
