"""Gradient signal preservation."""

from __future__ import annotations

from pruning.criteria import Scores, criterion, seen
from pruning.criteria._numbers import change, exact
from pruning.jobs import Job, Trained


@criterion(
    "grasp",
    source="Wang et al. 2020, section 4 and Algorithm 1 (arXiv 2002.07376)",
    needs=("hessian_gradients",),
    at="rewind",
)
def grasp(trained: Trained, job: Job) -> Scores:
    """w·(Hg) at initialization: weights whose removal increases the gradient flow most go first.

    Moving the weights by δ changes the gradient flow gᵀg by 2 δᵀHg, to first order; removing one is δ = −w, so its
    S = −w·(Hg) is what the flow gains, up to the factor. The paper removes the largest S, hence the sign here, where
    the highest score is kept.
    """
    products = seen(trained, "hessian_gradients")
    return {name: change(exact(products, name), exact(trained.params, name)) for name in job.mask}
