"""Erdős–Rényi–kernel densities."""

from __future__ import annotations

from pruning.ladder import Target
from pruning.scopes import PrunableTensors, Schedule, scope
from pruning.scopes.filling import filled_levels


@scope("erk", source="Evci et al. 2020, section 3 (arXiv 1911.11134)")
def erk(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """Densities ∝ (n_in + n_out + w + h) / (n_in · n_out · w · h): small tensors stay denser.

    A density ends at 1, and what is over goes to the other tensors in proportion. The formula is symmetric in a
    tensor's axes and holds in any layout.
    """
    # A density of sum(shape) / prod(shape) is a count of sum(shape).
    return filled_levels(schedule, tensors, {name: max(1, sum(shape)) for name, shape in tensors.shapes.items()})
