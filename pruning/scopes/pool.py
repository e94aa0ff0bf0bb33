"""One pool."""

from __future__ import annotations

from pruning.ladder import Target
from pruning.scopes import PrunableTensors, Schedule, level_totals, scope


@scope("global", source="Frankle & Carbin 2019, section 3, deeper networks (arXiv 1803.03635)")
def pool(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """All weights compete in one pool: the scores decide the densities of the tensors."""
    return list[Target](level_totals(schedule, tensors))
