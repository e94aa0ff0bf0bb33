"""How many validation examples there are: they limit which differences of a mean can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.joining import examples
from lottery.settings.config import SearchConfig

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.data.unseen import Unseen


def held_out(parts: Parts | Episodes | Fitness | Unseen, config: SearchConfig, episodes: int | None) -> int | None:
    """Return how many examples (or episodes) choices are made on; None for a loader, where nobody asks.

    Args:
        parts: the data.
        config: the search.
        episodes: how many of them, where the data is an environment.

    A `DataLoader` is counted by reading it once, and only where the default tolerance may depend on it.
    """
    if not isinstance(parts, Parts):
        return episodes
    part = parts.validation
    if isinstance(part, Tensors):
        return len(part)
    if config.tolerance is not None:
        return None
    return sum(examples(targets) for _, targets in part.batches(0))
