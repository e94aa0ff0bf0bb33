"""Connection sensitivity."""

from __future__ import annotations

import numpy as np

from pruning.criteria import Scores, criterion, seen
from pruning.criteria._numbers import change, exact
from pruning.jobs import Job, Trained


@criterion("snip", source="Lee et al. 2019, equation 5 (arXiv 1810.02340)", needs=("gradients",), at="rewind")
def snip(trained: Trained, job: Job) -> Scores:
    """|g·w| at initialization: weights whose removal changes the loss least, to first order, go first."""
    gradients = seen(trained, "gradients")
    return {name: np.abs(change(exact(gradients, name), exact(trained.params, name))) for name in job.mask}
