"""How many weights every level of a search keeps."""

from __future__ import annotations

from collections.abc import Mapping

from lottery.settings.config import SearchConfig
from pruning.ladder import Target
from pruning.scopes import PrunableTensors, Schedule, place
from pruning.uses.uses import Uses


def ladder(
    config: SearchConfig,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    uses: Uses | None = None,
) -> list[Target]:
    """Return how many weights every level keeps, level 0 first.

    Args:
        config: the search.
        sizes: weights at level 0 in each tensor, in the model's order.
        shapes: the tensors' shapes; by default vectors of these sizes.
        uses: how the network uses them; by default in their order, and the last makes the outputs.

    Raises:
        UnknownName: a name pattern that matches no tensor.
        BadValue: a level that empties a tensor or that cannot be met, or a table that the scope does not read.

    >>> config = SearchConfig(scope="layer", levels=7)
    >>> sizes = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
    >>> round(sum(ladder(config, sizes)[7].values()) / 266_200, 4)
    0.2107
    """
    schedule = Schedule(
        prune_rate=config.prune_rate,
        levels=config.levels,
        sparsity=config.sparsity,
        densities=config.densities,
        guard=config.guard,
        layer_rates=config.layer_rates,
        layer_densities=config.layer_densities,
    )
    shapes = shapes or {name: (size,) for name, size in sizes.items()}
    tensors = (
        PrunableTensors(shapes, sizes, uses.order, uses.outputs) if uses is not None else PrunableTensors(shapes, sizes)
    )
    return place(config.scope, schedule, tensors)
