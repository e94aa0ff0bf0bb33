"""Scores drawn at random: the baseline that every criterion has to beat."""

from __future__ import annotations

import hashlib

import numpy as np

from pruning.criteria import Scores, criterion
from pruning.jobs import Job, Trained


@criterion("random", source="Frankle & Carbin 2019, section 2, random sparse networks (arXiv 1803.03635)")
def random(trained: Trained, job: Job) -> Scores:
    """Uniform noise from the job's seed: which weights go is chance."""
    return {name: _generator(job.seed, name).random(array.shape, np.float32) for name, array in job.mask.items()}


def _generator(seed: int, name: str) -> np.random.Generator:
    # Seeded by name, so that a tensor's scores do not depend on which other tensors there are.
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, digest])))
