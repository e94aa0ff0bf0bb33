"""The plan of a search: everything that decides it, resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lottery.search.levels.drawing import Drawing
from lottery.search.levels.rewind import Rewind
from lottery.settings.config import SearchConfig
from pruning.ladder import Target
from pruning.mask import Mask


@dataclass(frozen=True)
class Plan:
    """Everything that decides a search, resolved.

    Attributes:
        config: the search's configuration.
        drawing: how masks are drawn.
        targets: how many weights each level keeps, level 0 first.
        dense: the mask of level 0, by replicate seed.
        rewind: where survivors go back to.
        total_steps: steps of a whole training.
        about: facts that every ticket records: model, data, trainer, metric, framework, layout, settings.
    """

    config: SearchConfig
    drawing: Drawing
    targets: Sequence[Target]
    dense: Mapping[int, Mask]
    rewind: Rewind
    total_steps: int
    about: Mapping[str, Any]
