"""One density."""

from __future__ import annotations

from pruning.ladder import Target
from pruning.scopes import PrunableTensors, Schedule, scope
from pruning.scopes.filling import filled_levels


@scope("uniform", source="Evci et al. 2020, section 3, uniform (arXiv 1911.11134)")
def uniform(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """The same density in every tensor.

    Evci et al. keep the first layer dense; here it is pruned like the others unless it is named in `skip`.
    """
    return filled_levels(schedule, tensors, {name: max(1, total) for name, total in tensors.totals.items()})
