"""Fisher pruning."""

from __future__ import annotations

from pruning.criteria import Scores, criterion, seen
from pruning.criteria._numbers import exact, weighted_squares
from pruning.jobs import Job, Trained


@criterion("fisher", source="Theis et al. 2018, section 2 (arXiv 1801.05787)", needs=("fisher",))
def fisher(trained: Trained, job: Job) -> Scores:
    """½F·w² after training, F the mean of squared gradients of single examples' losses.

    Optimal brain damage (LeCun et al. 1990) with the empirical Fisher information in the place of the Hessian.
    """
    information = seen(trained, "fisher")
    return {name: 0.5 * weighted_squares(exact(information, name), exact(trained.params, name)) for name in job.mask}
