"""Trainers by name: how a search gets from a configuration to something that trains jobs. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lottery.data.parts import Parts

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.data.unseen import Unseen
from lottery.networks.objectives.metric import GivenMetric, Measure
from lottery.networks.objectives.objective import GivenLoss
from lottery.networks.sources.source import Source
from lottery.state.behaviour import Behaviour
from pruning.jobs import Job, Trainer
from pruning.registry import Registry
from pruning.watch import Watch


@dataclass(frozen=True)
class Setup:
    """A trainer that is ready, and the figures that a search plans with.

    Attributes:
        trainer: trains jobs.
        total_steps: steps of a whole training.
        steps_per_epoch: for rewind points counted in epochs.
        metric: the metric that it measures.
        objective: names loss and metric, for the run's identity.
        device: where it trains, in words.
        refusals: for what a criterion may need and this trainer cannot give: why not, and what would.
        behave: describes what a network, its loss and its metric do where a job would begin, without training it.
        late_start: why no training can begin at another step than the first, so that survivors cannot be rewound to a
            later one; None where it can.
    """

    trainer: Trainer
    total_steps: int
    steps_per_epoch: int
    metric: Measure
    objective: str
    device: str
    refusals: Mapping[str, str] = field(default_factory=dict)
    behave: Callable[[Job], Behaviour] = lambda job: {}
    late_start: str | None = None


@dataclass(frozen=True)
class TrainerKind:
    """A way to train.

    Attributes:
        config: the dataclass of its settings.
        setup: makes it ready for a model and data.
    """

    config: type
    setup: Callable[..., Setup]


@dataclass(frozen=True)
class Ask:
    """The arguments of `TrainerKind.setup`.

    Attributes:
        source: where networks come from.
        parts: the data, or an environment.
        config: an instance of the kind's `config`.
        loss: the caller's own loss, or None.
        metric: the caller's own metric, or None.
        watch: receives progress.
        seed: the seed of the network that is used to check that model and data fit.
        split_seed: the seed of the episodes that policies are measured on.
    """

    source: Source
    parts: Parts | Episodes | Fitness | Unseen
    config: Any
    loss: GivenLoss | None
    metric: GivenMetric | None
    watch: Watch
    seed: int
    split_seed: int = 0


TRAINERS: Registry[TrainerKind] = Registry("trainer", "lottery.trainers")
