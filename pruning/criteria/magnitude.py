"""Magnitude of the trained weight."""

from __future__ import annotations

import numpy as np

from pruning.criteria import Scores, criterion
from pruning.jobs import Job, Trained


@criterion("magnitude", source="Frankle & Carbin 2019, section 2 (arXiv 1803.03635)")
def magnitude(trained: Trained, job: Job) -> Scores:
    """|w| after training: small weights go first."""
    return {name: np.abs(trained.params[name]) for name in job.mask}
