"""The mask criteria of Zhou et al. 2019 that look at initial and final weights.

The other two of their nine are `magnitude` (large final) and `random`. "Initial" is the rewind point, `job.params`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning.criteria import Scores, criterion
from pruning.criteria._numbers import exact, size
from pruning.jobs import Job, Trained

_SOURCE = "Zhou et al. 2019, section 2 (arXiv 1905.01067)"


@criterion("small-final", source=_SOURCE)
def small_final(trained: Trained, job: Job) -> Scores:
    """−|w| after training: large weights go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> small_final(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([-2., -3.])}
    """
    return {name: -size(trained.params, name) for name in job.mask}


@criterion("magnitude-initial", source=_SOURCE)
def magnitude_initial(trained: Trained, job: Job) -> Scores:
    """|w₀| at the rewind point (large init): weights that began small go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> magnitude_initial(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([1., 4.])}
    """
    return {name: size(job.params, name) for name in job.mask}


@criterion("small-init", source=_SOURCE)
def small_init(trained: Trained, job: Job) -> Scores:
    """−|w₀| at the rewind point: weights that began large go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> small_init(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([-1., -4.])}
    """
    return {name: -size(job.params, name) for name in job.mask}


@criterion("large-init-large-final", source=_SOURCE)
def large_init_large_final(trained: Trained, job: Job) -> Scores:
    """min(α|w|, |w₀|): weights that began or ended small go first.

    α makes initial and final weights alike in scale: the mean of |w₀| over that of |w|, over the survivors of each
    tensor. The authors' code lays its two thresholds at one percentile of each tensor, and so lets α depend on how
    many weights go, which a score cannot know; for distributions of one shape the two agree.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> large_init_large_final(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([1., 3.])}
    """
    return {name: np.minimum(*_alike(name, trained, job)) for name in job.mask}


@criterion("small-init-small-final", source=_SOURCE)
def small_init_small_final(trained: Trained, job: Job) -> Scores:
    """−max(α|w|, |w₀|), α as in `large-init-large-final`: weights that began or ended large go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> small_init_small_final(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([-2., -4.])}
    """
    return {name: -np.maximum(*_alike(name, trained, job)) for name in job.mask}


@criterion("magnitude-increase", source=_SOURCE)
def magnitude_increase(trained: Trained, job: Job) -> Scores:
    """|w| − |w₀|: weights that shrank in training go first.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> job = Job({"w": np.array([1.0, -4.0])}, Mask({"w": [1, 1]}), 0, Budget(0, 1))
    >>> magnitude_increase(Trained({"w": np.array([-2.0, 3.0])}, []), job)
    {'w': array([ 1., -1.])}
    """
    return {name: size(trained.params, name) - size(job.params, name) for name in job.mask}


@criterion("movement", source=_SOURCE)
def movement(trained: Trained, job: Job) -> Scores:
    """|w − w₀|: weights that stayed where they were go first.

    Not the movement pruning of Sanh et al. 2020 (arXiv 2005.07683), which sums −w·g over a whole training.
    """
    return {name: np.abs(exact(trained.params, name) - exact(job.params, name)) for name in job.mask}


def _alike(name: str, trained: Trained, job: Job) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return α|w| and |w₀|; α is 1 where the survivors of one of the two are all 0, or where there are none."""
    final, initial, keep = size(trained.params, name), size(job.params, name), job.mask[name]
    means = final.mean(where=keep) if keep.any() else 0.0, initial.mean(where=keep) if keep.any() else 0.0
    alpha = means[1] / means[0] if all(means) else 1.0
    return alpha * final, initial
