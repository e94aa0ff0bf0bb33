"""Lottery tickets: find, train, run and study sparse sub-networks that train as well as the dense one.

>>> from lottery import Data, Ticket, find_ticket

Importing this package is cheap: PyTorch and JAX are loaded when something is trained.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery.api import find_ticket
    from lottery.data import Data
    from lottery.data.fitness import Fitness
    from lottery.networks.objectives.metric import Metric
    from lottery.results.levels import Search
    from lottery.runs.ticket import Ticket
    from lottery.studies.ablation.running import ablate
    from lottery.studies.analyses import analyze
    from lottery.studies.layers import layers
    from lottery.studies.transfer.again import train_ticket
    from pruning.mask import Mask
    from pruning.mask_holder import mask_holder

__all__ = [
    "Data",
    "Fitness",
    "Mask",
    "Metric",
    "Search",
    "Ticket",
    "ablate",
    "analyze",
    "find_ticket",
    "layers",
    "mask_holder",
    "train_ticket",
]

_HOMES = {
    "Data": "lottery.data",
    "Fitness": "lottery.data.fitness",
    "Mask": "pruning.mask",
    "Metric": "lottery.networks.objectives.objective",
    "Search": "lottery.results.levels",
    "Ticket": "lottery.runs.ticket",
    "ablate": "lottery.studies.ablation.running",
    "analyze": "lottery.studies.analyses",
    "find_ticket": "lottery.api",
    "layers": "lottery.studies.layers",
    "mask_holder": "pruning.mask_holder",
    "train_ticket": "lottery.studies.transfer.again",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lottery' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
