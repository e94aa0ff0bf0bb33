"""How evolution trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pruning.errors import BadValue, shown
from pruning.settings.setting import check_settings, setting

# The headings of help texts.
LENGTH, STRATEGY, EPISODES, HOW = "Training: length", "Evolution: strategy", "Evolution: episodes", "Training: how"

_MANY = 10**9
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
    """The settings of evolution."""

    strategy: str | Callable[..., Any] | AskTell = setting(
        "snes",
        "A registered name. Or an algorithm of evosax: its class, an instance for this number of weights, or a "
        "function of the population's size and a solution that makes one. `sigma` is its `std_init`; one that has no "
        "such parameter begins with a standard deviation of its own.",
        listed="strategies",
        group=STRATEGY,
        words=("algorithm", "es_name"),
    )
    population: int = setting(
        POPULATION,
        "Members of a generation. An instance of a strategy brings its own.",
        least=1,
        most=10**6,
        group=STRATEGY,
        words=("popsize", "pop_size", "population_size"),
    )
    generations: int | None = setting(
        None,
        "Generations a level. By default 600 on examples and 200 in environments.",
        least=1,
        most=_MANY,
        group=LENGTH,
        words=("num_generations", "gens", "n_generations"),
    )
    sigma: float = setting(
        0.05,
        "Standard deviation of the search distribution at the start of a level. Where the strategy has a schedule for "
        "it (`sigma_decay`), at generation 0: a level that is rewound to generation k begins with that of k.",
        above=0,
        most=1e38,
        group=STRATEGY,
        words=("sigma_init", "std_init", "init_std"),
    )
    sigma_factors: Mapping[str, float] = setting(
        {},
        "By what `sigma` is multiplied for single tensors, by tensor-name pattern (`fc1.weight = 0.5`). Exact names "
        "win. For strategies with a standard deviation of every weight; networks then evolve one after the other.",
        group=STRATEGY,
        later=True,
    )
    mean_decay: float = setting(
        0.0,
        "Fraction of the mean that is taken away after every generation (the paper's weight decay).",
        least=0,
        below=1,
        group=STRATEGY,
    )
    strategy_params: Mapping[str, float] = setting(
        {}, "Hyper-parameters of the strategy, by name.", of="strategy", group=STRATEGY
    )
    batch_size: int = setting(
        256,
        "Examples a generation; all members see the same ones. Where the loss or the metric depends on which examples "
        "share a batch, a `DataLoader`'s batches stay as they are: as many of them as hold this many examples.",
        least=1,
        most=10**7,
        group=LENGTH,
        words=("bs", "batchsize"),
    )
    train_only: tuple[str, ...] = setting(
        (),
        "Evolve these parameters only: name patterns, or the named sets `norm`, `biases` and `all-but-first` (PyTorch "
        "modules only). By default everything.",
        group=HOW,
        words=("trainable",),
    )
    episodes: int = setting(
        4,
        "Episodes that every member plays in a generation (environments only).",
        least=1,
        most=10**6,
        group=EPISODES,
        words=("rollouts", "num_rollouts"),
    )
    episode_steps: int | None = setting(
        None,
        "Longest episode (environments only). By default the environment's own limit.",
        least=1,
        most=_MANY,
        group=EPISODES,
        words=("episode_length", "max_episode_steps"),
    )
    test_episodes: int = setting(
        32,
        "Episodes that the mean plays for each of validation and test (environments only).",
        least=1,
        most=10**6,
        group=EPISODES,
    )
    eval_every: int | None = setting(
        None,
        "Generations between evaluations of the mean. By default a twentieth of the training.",
        least=1,
        most=_MANY,
        group=LENGTH,
        words=("eval_steps", "evaluate_every"),
    )
    precision: str = setting(
        "default",
        "Precision of matrix products on a GPU: `default` (TF32) or `float32`.",
        choices=("default", "float32"),
        group=HOW,
        words=("dtype",),
    )
    checkpoint_seconds: float = setting(
        30.0, "Least time between two checkpoints of an unfinished level.", least=0, most=1e9, group=HOW
    )
    device: str = setting(
        "auto", "Where to evolve: `auto`, `cpu`, `cuda` or `cuda:0`.", group=HOW, words=("accelerator",)
    )
    patience: int | None = setting(
        None,
        "End a level's evolution after this many evaluations without a smaller validation loss, but not before the "
        "generation to which survivors are rewound. By default it never ends early. Networks then evolve one after the "
        "other.",
        least=1,
        most=_MANY,
        group=LENGTH,
        words=("early_stopping", "early_stopping_patience"),
        later=True,
    )

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, str | type) and isinstance(self.strategy, AskTell):
            from es.strategies._given import Remade

            again = Remade(self.strategy)
            object.__setattr__(self, "strategy", again)
            object.__setattr__(self, "population", again.check(self.population, POPULATION))
        check_settings(self)
        for pattern, factor in self.sigma_factors.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < 1e38:
                raise BadValue(
                    f"sigma_factors: a factor is a number of more than 0, not {shown(factor)} for {pattern!r}; what is "
                    "not evolved at all is said by train_only"
                )
