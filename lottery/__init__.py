"""Lottery tickets: find, train, run and study sparse sub-networks that train as well as the dense one.

>>> from lottery import Data, Ticket, find_ticket

Importing this package is cheap: PyTorch and JAX are loaded when something is trained.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lottery.state.machine.shadowing import refuse_shadows

if TYPE_CHECKING:
    from lottery.api import find_ticket
    from lottery.data import Data
    from lottery.data.fitness import Fitness
    from lottery.exports.exporting import export
    from lottery.networks.objectives.metric import Metric
    from lottery.results.comparison import compare, difference_table
    from lottery.results.figure import comparison_figure, draw_density
    from lottery.results.levels import Search
    from lottery.results.resampling import bootstrap, interquartile_mean
    from lottery.results.statistics import by_seed, holm, paired_difference, paired_t_p, pairs, sign_flip_p
    from lottery.runs.ticket import Ticket
    from lottery.studies.ablation.report import ablation_figure, ablation_table
    from lottery.studies.ablation.running import ablate
    from lottery.studies.analyses import analyze, study
    from lottery.studies.analyses.overlap_between import overlap_between
    from lottery.studies.connection.report import connections_figure, connections_table
    from lottery.studies.connection.tickets import connect
    from lottery.studies.instability.report import stability_figure, stability_table
    from lottery.studies.instability.running import instability
    from lottery.studies.layers import layers
    from lottery.studies.transfer.again import train_ticket
    from lottery.studies.transfer.table import transfer
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
    "ablation_figure",
    "ablation_table",
    "analyze",
    "bootstrap",
    "by_seed",
    "compare",
    "comparison_figure",
    "connect",
    "connections_figure",
    "connections_table",
    "difference_table",
    "draw_density",
    "export",
    "find_ticket",
    "holm",
    "instability",
    "interquartile_mean",
    "layers",
    "mask_holder",
    "overlap_between",
    "paired_difference",
    "paired_t_p",
    "pairs",
    "sign_flip_p",
    "stability_figure",
    "stability_table",
    "study",
    "train_ticket",
    "transfer",
]

_HOMES = {
    "Data": "lottery.data",
    "Fitness": "lottery.data.fitness",
    "Mask": "pruning.mask",
    "Metric": "lottery.networks.objectives.metric",
    "Search": "lottery.results.levels",
    "Ticket": "lottery.runs.ticket",
    "ablate": "lottery.studies.ablation.running",
    "ablation_figure": "lottery.studies.ablation.report",
    "ablation_table": "lottery.studies.ablation.report",
    "analyze": "lottery.studies.analyses",
    "bootstrap": "lottery.results.resampling",
    "by_seed": "lottery.results.statistics",
    "compare": "lottery.results.comparison",
    "comparison_figure": "lottery.results.figure",
    "connect": "lottery.studies.connection.tickets",
    "connections_figure": "lottery.studies.connection.report",
    "connections_table": "lottery.studies.connection.report",
    "difference_table": "lottery.results.comparison",
    "draw_density": "lottery.results.figure",
    "export": "lottery.exports.exporting",
    "find_ticket": "lottery.api",
    "holm": "lottery.results.statistics",
    "instability": "lottery.studies.instability.running",
    "interquartile_mean": "lottery.results.resampling",
    "layers": "lottery.studies.layers",
    "mask_holder": "pruning.mask_holder",
    "overlap_between": "lottery.studies.analyses.overlap_between",
    "paired_difference": "lottery.results.statistics",
    "paired_t_p": "lottery.results.statistics",
    "pairs": "lottery.results.statistics",
    "sign_flip_p": "lottery.results.statistics",
    "stability_figure": "lottery.studies.instability.report",
    "stability_table": "lottery.studies.instability.report",
    "study": "lottery.studies.analyses",
    "train_ticket": "lottery.studies.transfer.again",
    "transfer": "lottery.studies.transfer.table",
}

refuse_shadows(__path__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lottery' has no attribute {name!r}")
    refuse_shadows(__path__)  # the search path may have changed since
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
