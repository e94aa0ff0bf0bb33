"""How evolution trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pruning.errors import BadValue, unknown
from pruning.settings.later import LATER
from pruning.settings.ranges import check_ranges

PRECISIONS = ("default", "float32")
# The least and the most of each; what is more is a mistake, which would fill the memory before it is seen.
_RANGES = {
    "population": (1, 10**6),
    "generations": (1, 10**9),
    "sigma": (0, 1e38),
    "batch_size": (1, 10**7),
    "episodes": (1, 10**6),
    "episode_steps": (1, 10**9),
    "test_episodes": (1, 10**6),
    "eval_every": (1, 10**9),
    "patience": (1, 10**9),
    "checkpoint_seconds": (0, 1e9),
}


POPULATION = 64


@runtime_checkable
class AskTell(Protocol):
    """An object with `ask` and `tell`."""

    def ask(self, key: Any, state: Any, params: Any) -> Any:
        """Return a population, and the state to tell its fitness to."""
        ...

    def tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        """Return the next state."""
        ...


@dataclass(frozen=True)
class ESConfig:
    """The evolution trainer's configuration.

    Attributes:
        strategy: a name from `lottery list strategies`; or an algorithm of evosax: its class, an instance for this
            number of weights, or a function of the population's size and a solution that makes one. `sigma` is its
            `std_init`; one that has no such parameter begins with a standard deviation of its own.
        population: members of a generation; an instance brings its own.
        generations: generations a level; by default 600 on examples and 200 in environments.
        sigma: standard deviation of the search distribution at the start of a level; where the strategy has a schedule
            for it (`sigma_decay`), at generation 0: a level that is rewound to generation k begins with that of k.
        mean_decay: fraction of the mean that is taken away after every generation (the paper's weight decay).
        strategy_params: the strategy's own hyper-parameters, by name.
        batch_size: examples a generation; all members see the same ones. Where the loss or the metric depends on which
            examples share a batch, a `DataLoader`'s batches stay as they are: as many of them as hold this many
            examples.
        train_only: name patterns of the parameters that are evolved, or the named sets `norm`, `biases` and
            `all-but-first` (PyTorch modules only); everything where none is given.
        episodes: episodes that every member plays in a generation (environments only).
        episode_steps: longest episode (environments only); by default the environment's own limit.
        test_episodes: episodes that the mean plays for each of validation and test (environments only).
        eval_every: generations between evaluations of the mean; by default a twentieth of the training.
        patience: end a level's evolution after this many evaluations without a smaller validation loss (not before the
            generation to which survivors are rewound); by default it never ends early. Networks then evolve one after
            the other.
        precision: of matrix products on a GPU: `default` (TF32) or `float32`.
        checkpoint_seconds: least time between two checkpoints of an unfinished level.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
    """

    strategy: str | Callable[..., Any] | AskTell = "snes"
    population: int = POPULATION
    generations: int | None = None
    sigma: float = 0.05
    mean_decay: float = 0.0
    strategy_params: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 256
    train_only: tuple[str, ...] = ()
    episodes: int = 4
    episode_steps: int | None = None
    test_episodes: int = 32
    eval_every: int | None = None
    precision: str = "default"
    checkpoint_seconds: float = 30.0
    device: str = "auto"
    patience: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, str | type) and isinstance(self.strategy, AskTell):
            from es.strategies._given import Remade

            again = Remade(self.strategy)
            object.__setattr__(self, "strategy", again)
            object.__setattr__(self, "population", again.check(self.population, POPULATION))
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for name in ("population", "sigma", "batch_size", "episodes", "test_episodes"):
            if not getattr(self, name) > 0:
                raise BadValue(f"{name} must be more than 0, not {getattr(self, name):g}")
        for name in ("generations", "eval_every", "episode_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadValue(f"{name} must be 1 or more, not {value}")
        check_ranges(self, _RANGES)
        if not 0 <= self.mean_decay < 1:
            raise BadValue(f"mean_decay must be in [0, 1), not {self.mean_decay:g}")
        if self.checkpoint_seconds < 0:
            raise BadValue(f"checkpoint_seconds must be 0 or more, not {self.checkpoint_seconds:g}")
