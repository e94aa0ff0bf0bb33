"""Weights and activations."""

from __future__ import annotations

import numpy as np

from pruning.criteria import Scores, criterion, seen
from pruning.criteria._numbers import size
from pruning.jobs import Job, Trained


@criterion("wanda", source="Sun et al. 2024, equation 1 (arXiv 2306.11695)", needs=("input_norms",))
def wanda(trained: Trained, job: Job) -> Scores:
    """|w|·‖x‖₂ after training, x what the weight is multiplied by on all examples.

    The paper compares scores within each output unit; here they compete in the search's scope.
    """
    norms = seen(trained, "input_norms")
    return {name: size(trained.params, name) * norms[name].astype(np.float64) for name in job.mask}
