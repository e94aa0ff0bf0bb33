"""Continuous sparsification."""

from __future__ import annotations

from pruning.criteria import Scores, criterion, seen
from pruning.jobs import Job, Trained


@criterion(
    "continuous-sparsification",
    source="Savarese et al. 2020 (arXiv 1912.04427)",
    needs=("continuous-sparsification",),
    at="rewind",
)
def continuous_sparsification(trained: Trained, job: Job) -> Scores:
    """The parameter s of a mask σ(β s) learned together with the weights, β rising: the largest s stay.

    The paper's ticket is 1[s > 0], whatever its size; here exactly as many weights as the level says are drawn from
    the ranking by s. Each level learns from s = 0, where the paper carries removed weights' s over.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> learned = Trained({}, [], evidence={"continuous-sparsification": {"w": [0.3, -0.2]}})
    >>> continuous_sparsification(learned, Job({}, Mask({"w": [1, 1]}), 0, Budget(0, 1)))
    {'w': [0.3, -0.2]}
    """
    scores = seen(trained, "continuous-sparsification")
    return {name: scores[name] for name in job.mask}
