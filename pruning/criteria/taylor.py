"""How much the loss changes when a weight is removed, by a Taylor expansion at the trained weights."""

from __future__ import annotations

from pruning.criteria import Scores, criterion, seen
from pruning.criteria._numbers import change, exact
from pruning.jobs import Job, Trained


@criterion(
    "taylor",
    source="Molchanov et al. 2019, section 3 (arXiv 1906.10771); Molchanov et al. 2017 (arXiv 1611.06440)",
    needs=("gradients",),
)
def taylor(trained: Trained, job: Job) -> Scores:
    """(g·w)² after training: weights whose removal changes the loss least, to first order, go first.

    The paper's importance of a single weight; g is that of the mean loss of one batch. It ranks the weights of one
    network as `snip` would; the two differ in the weights that they look at.
    """
    return {name: change**2 for name, change in _first_order(trained, job).items()}


@criterion(
    "taylor-second",
    source="Molchanov et al. 2019, section 3 (arXiv 1906.10771), with the diagonal of LeCun et al. 1989 (OBD)",
    needs=("gradients", "hessian_diagonal"),
)
def taylor_second(trained: Trained, job: Job) -> Scores:
    """(−g·w + ½h·w²)² after training: weights whose removal changes the loss least, to second order, go first.

    h is the Hessian's diagonal: removing the weight alone moves the loss by −g·w + ½h·w². (The paper writes a row of
    the Hessian times all weights for h·w; the removal of one weight alone has the entry on the diagonal.) Optimal
    brain damage is the second term (its g is 0 at a minimum), with curvature that is made positive. Here h is the
    Hessian's own, exact or estimated so closely that its sign means something (the probe `hessian_diagonal`), and the
    square takes a change in either direction for importance, as the paper does.

    >>> import numpy as np
    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> found = {"gradients": {"w": np.array([1.0, 1.0])}, "hessian_diagonal": {"w": np.array([0.0, 1.0])}}
    >>> trained = Trained({"w": np.array([3.0, 2.0])}, [], evidence=found)
    >>> taylor_second(trained, Job({}, Mask({"w": [1, 1]}), 0, Budget(0, 1)))
    {'w': array([9., 0.])}
    """
    first, second = _first_order(trained, job), _second_order(trained, job)
    return {name: (first[name] + second[name]) ** 2 for name in job.mask}


def _first_order(trained: Trained, job: Job) -> Scores:
    gradients = seen(trained, "gradients")
    return {name: -change(exact(gradients, name), exact(trained.params, name)) for name in job.mask}


def _second_order(trained: Trained, job: Job) -> Scores:
    diagonal = seen(trained, "hessian_diagonal")
    return {name: 0.5 * exact(diagonal, name) * exact(trained.params, name) ** 2 for name in job.mask}
