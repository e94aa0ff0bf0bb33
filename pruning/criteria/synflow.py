"""Synaptic flow."""

from __future__ import annotations

import numpy as np

from pruning.criteria import Scores, criterion, seen
from pruning.jobs import Job, Trained


@criterion(
    "synflow",
    source="Tanaka et al. 2020, Algorithm 1 (arXiv 2006.05467)",
    needs=("synflow",),
    at="rewind",
    rounds=100,
)
def synflow(trained: Trained, job: Job) -> Scores:
    """|w · ∂R/∂|w||, R = 1ᵀ(∏|W|)1, in 100 rounds: weights on the weakest paths go first; no data, no labels."""
    flow = seen(trained, "synflow")
    return {name: np.abs(trained.params[name].astype(np.float64) * flow[name].astype(np.float64)) for name in job.mask}
