"""Size of the gradient."""

from __future__ import annotations

import numpy as np

from pruning.criteria import Scores, criterion, seen
from pruning.jobs import Job, Trained


@criterion(
    "gradient-norm",
    source="Zhou et al. 2019, the authors' code: `grad` (arXiv 1905.01067); regrowth in Evci et al. 2020 (1911.11134)",
    needs=("gradients",),
    at="rewind",
)
def gradient_norm(trained: Trained, job: Job) -> Scores:
    """|g| at initialization: weights that training would move least at first go first."""
    gradients = seen(trained, "gradients")
    return {name: np.abs(gradients[name]) for name in job.mask}
