"""What a run directory is found by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lottery.state.behaviour import Behaviour


@dataclass(frozen=True)
class Identity:
    """What identifies an experiment.

    Attributes:
        settings: hashed into the run's name: every setting that changes a result but the seeds of its replicates;
            hashes of data, model, loss, metric and criterion. Plain JSON.
        behaviour: outputs of the first replicate's network, loss and metric before training.
        unsure: why two runs of the same settings and behaviour may still be two experiments; empty where they cannot.
    """

    settings: Mapping[str, Any]
    behaviour: Behaviour = field(default_factory=dict)
    unsure: tuple[str, ...] = ()
