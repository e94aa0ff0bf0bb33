"""Edge-popup."""

from __future__ import annotations

from pruning.criteria import Scores, criterion, seen
from pruning.jobs import Job, Trained


@criterion(
    "edge-popup", source="Ramanujan et al. 2020, section 3 (arXiv 1911.13299)", needs=("edge-popup",), at="rewind"
)
def edge_popup(trained: Trained, job: Job) -> Scores:
    """A score learned for each frozen weight: those that make a good network as they are stay.

    The paper's masks have the same density in every tensor (scope `uniform`); scope `global` keeps the
    subnetwork that was learned. The paper does not train the weights afterwards: evaluate the ticket where it starts.

    >>> from pruning.jobs import Budget
    >>> from pruning.mask import Mask
    >>> learned = Trained({}, [], evidence={"edge-popup": {"w": [0.3, -0.2]}})
    >>> edge_popup(learned, Job({}, Mask({"w": [1, 1]}), 0, Budget(0, 1)))
    {'w': [0.3, -0.2]}
    """
    scores = seen(trained, "edge-popup")
    return {name: scores[name] for name in job.mask}
