"""Trainers by name: how a search gets from a configuration to something that trains jobs. One folder each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lottery.settings.config import SearchConfig
from pruning.errors import BadValue
from pruning.registry import Registry
from pruning.settings.setting import settings_of

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.data.parts import Parts
    from lottery.data.unseen import Unseen
    from lottery.networks.objectives.metric import GivenMetric, Measure
    from lottery.networks.objectives.objective import GivenLoss
    from lottery.networks.sources.source import Source
    from lottery.state.behaviour import Behaviour
    from pruning.jobs import Job, Trainer
    from pruning.watch import Watch


Listed = Sequence[Mapping[str, str]]
"""Names to choose from: each with `name`, `summary` and `source`."""

# What a trainer may learn from. One that brings its own data learns from nothing that is known here.
EXAMPLES, EPISODES, FITNESS, NOTHING = "examples", "episodes", "fitness", "nothing"


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
        episodes: in an environment, the episodes on which choices are made; None for data.
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
    episodes: int | None = None


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


@dataclass(frozen=True)
class TrainerKind:
    """Everything that the rest of the house knows of a way to train.

    Attributes:
        config: the dataclass of its settings, each declared by `pruning.settings.setting.setting`.
        setup: makes it ready for a model and data.
        length: the settings that say how long it trains; where one is given, it replaces the others.
        no_result: the settings that change no result (where it trains, how often it writes).
        scoring: the settings that only say what a criterion sees.
        frameworks: the frameworks of the networks that it trains: `torch`, `jax`.
        data: what it learns from: `examples`, `episodes`, `fitness`, or `nothing`, where it brings its own data.
        started_by: a setting that chooses this trainer by itself, where no trainer is named.
        ends_early: whether it can ask a budget's question during a training, and end there (Early-Bird).
        moves: returns the way in which masks move during a training, by name, or nothing where they stay.
        prepared: returns what it is asked, as everything that looks at model, loss and data should see it.
        torch_device: returns where PyTorch looks at its networks, for criteria that look at more than weights.
        training_mode: whether its networks are in training mode while it trains.
        lists: what `lottery list` shows beside the registries, by the name that users type: for instance optimizers.

    Raises:
        BadValue: a setting without a help text or with the name of a search's, or a name here that is no setting.
    """

    config: type
    setup: Callable[[Ask], Setup]
    length: frozenset[str] = frozenset()
    no_result: frozenset[str] = frozenset()
    scoring: frozenset[str] = frozenset()
    frameworks: frozenset[str] = frozenset({"torch"})
    data: frozenset[str] = frozenset({EXAMPLES})
    started_by: str = ""
    ends_early: bool = False
    moves: Callable[[Any], str] = lambda config: ""
    prepared: Callable[[Ask], Ask] = lambda ask: ask
    torch_device: Callable[[Any], str] = lambda config: "auto"
    training_mode: bool = True
    lists: Mapping[str, Callable[[], Listed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = settings_of(self.config)
        named = {*self.length, *self.no_result, *self.scoring, *({self.started_by} - {""})}
        if unknown := sorted(named - settings.keys()):
            raise BadValue(f"{unknown[0]!r} is no setting of {self.config.__name__}")
        if clash := sorted(settings.keys() & settings_of(SearchConfig).keys()):
            raise BadValue(
                f"{self.config.__name__}.{clash[0]} has the name of a setting of every search: give it another one"
            )


TRAINERS: Registry[TrainerKind] = Registry("trainer", "lottery.trainers", listed="trainers")
