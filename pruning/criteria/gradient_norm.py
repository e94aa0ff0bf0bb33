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
    """|g| at initialization: weights that training would move least at first go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> looked_at = Trained({}, [], evidence={"gradients": {"w": np.array([0.3, -0.2])}})
    >>> gradient_norm(looked_at, Job({}, Mask({"w": [1, 1]}), 0, Budget(0, 1)))
    {'w': array([0.3, 0.2])}
    """
    gradients = seen(trained, "gradients")
    return {name: np.abs(gradients[name]) for name in job.mask}
