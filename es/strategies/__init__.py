"""Strategies: the evosax algorithms that evolve one flat vector of weights. One small file for each family.

Here are all distribution-based algorithms of evosax that search around one mean, and for each the standard deviation of
every weight under the distribution that it samples from. Every strategy minimizes, and starts with a standard deviation
of `sigma` for each weight. Left out are those that do not fit a search of this kind; asking for one says why:

* `guided-es` needs a gradient; evolution here sees losses only;
* `noise-reuse-es` and `persistent-es` are for truncated unrolls of an inner problem, and keep one perturbation over
  several generations;
* `random-search` has no distribution around a mean;
* `sv-cma-es` and `sv-open-es` have several means (particles), so no single network to prune.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

import jax

from pruning.errors import BadValue, UnknownName, unknown
from pruning.registry import Registry, summary_of

Choice: TypeAlias = Any
"""A strategy's name, or a function of a population's size and a solution that makes an algorithm of evosax."""
State: TypeAlias = Any
"""A pytree of float32 and int32 arrays; its structure, shapes and types never change."""

MEMORY_LIMIT = 2**28
"""Most bytes that a strategy may need beside the population, for one replicate: 3,344 weights for CMA-ES. Each of its
generations then takes seconds already, most of them for the decomposition of a 3,344 × 3,344 matrix."""

LEFT_OUT = {
    "guided-es": "it needs a gradient, and evolution here sees losses only",
    "noise-reuse-es": "it is for truncated unrolls, and keeps one perturbation over several generations",
    "persistent-es": "it is for truncated unrolls, and adds its perturbations up over generations",
    "random-search": "it has no distribution around a mean",
    "sv-cma-es": "it has several means, so no single network to prune",
    "sv-open-es": "it has several means, so no single network to prune",
}
_OTHER_SPELLINGS = {"discoveredes": "des", "learnedes": "les", "gld": "gradientless-descent"}


@dataclass(frozen=True)
class Strategy:
    """A strategy that is ready for one search space: pure functions, under `jit`, `vmap` and `lax` loops as well.

    Attributes:
        init: `init(key, mean)` returns the first state; mean [D] float32.
        ask: `ask(key, state)` returns a population [P, D] float32 and the state to hand to `tell`.
        tell: `tell(key, population, fitness, state)` returns the next state; fitness [P], lower is better. Members
            without a finite fitness are worse than all others; equally good ones share what their ranks earn; where
            no member is better than another, only schedules go on.
        mean: `mean(state)` returns the centre of the search, [D].
        with_mean: `with_mean(state, mean)` moves the centre (mean decay).
        std: `std(state)` returns the standard deviation of each weight in the population that the next `ask` on this
            state draws, [D]; the same number for all weights where the strategy has one only.
    """

    init: Callable[[jax.Array, jax.Array], State]
    ask: Callable[[jax.Array, State], tuple[jax.Array, State]]
    tell: Callable[[jax.Array, jax.Array, jax.Array, State], State]
    mean: Callable[[State], jax.Array]
    with_mean: Callable[[State, jax.Array], State]
    std: Callable[[State], jax.Array]


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter: its default and its range.

    Attributes:
        default: its value where nobody sets it; NaN stands for the algorithm's own, which depends on the number of
            weights or on the population.
        low: smallest value, itself allowed unless `above`.
        high: largest value, itself allowed unless `below`.
        above: whether the value must be more than `low`.
        below: whether the value must be less than `high`.
        whole: whether only whole numbers are allowed.
    """

    default: float
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def allows(self, value: float) -> bool:
        """Return whether `value` is in range."""
        if math.isnan(value):
            return math.isnan(self.default)
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return math.isfinite(value) and low and high and (not self.whole or value == int(value))

    def __str__(self) -> str:
        low = f"{'more than' if self.above else 'at least'} {self.low:g}" if math.isfinite(self.low) else ""
        high = f"{'less than' if self.below else 'at most'} {self.high:g}" if math.isfinite(self.high) else ""
        bounds = " and ".join(filter(None, (low, high))) or "finite"
        return f"a whole number, {bounds}" if self.whole else bounds


Make = Callable[[int, int, float, Mapping[str, float]], Strategy]
Memory = Callable[[int, int, Mapping[str, float]], tuple[int, str]]


@dataclass(frozen=True)
class StrategyKind:
    """What a strategy is before the search space is known.

    Attributes:
        make: `make(population, dims, sigma, hyperparameters)` builds it from checked values, every hyper-parameter
            given; use `make_strategy`, which does the checking.
        settings: the hyper-parameters, with their ranges.
        paired: whether members come in pairs around the mean, so that the population must be even.
        distribution: the shape of what it samples from: one standard deviation for all weights (`scalar`), one for
            each (`separable`), or one for each and correlations of a few directions (`low-rank`) or of all (`full`);
            of a caller's own it is `unknown`.
        smallest: smallest population.
        memory: `memory(population, dims, hyperparameters)`, where the strategy needs much more than a population:
            the bytes at the peak of one generation, and of what.
        instead: what to use where that is too much.
    """

    make: Make
    settings: Mapping[str, Setting]
    paired: bool
    distribution: Literal["scalar", "separable", "low-rank", "full", "unknown"]
    smallest: int
    memory: Memory | None
    instead: str

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Names and defaults; NaN stands for evosax's own value for the number of weights and the population."""
        return {name: setting.default for name, setting in self.settings.items()}


STRATEGIES: Registry[StrategyKind] = Registry("strategy", "es.strategies", listed="strategies")


def strategy(
    name: str,
    *,
    source: str,
    distribution: Literal["scalar", "separable", "low-rank", "full"],
    settings: Mapping[str, Setting] | None = None,
    paired: bool = False,
    smallest: int = 2,
    memory: Memory | None = None,
    instead: str = "",
) -> Callable[[Make], Make]:
    """Register a function that makes a strategy; its docstring's first line is its summary.

    Args:
        name: the name that users type.
        source: the paper that defines it.
        distribution: see `StrategyKind`, as the others.
        settings: the hyper-parameters.
        paired: whether the population must be even.
        smallest: smallest population.
        memory: the memory that it needs beside a population.
        instead: what to use where that is too much.
    """

    def register(make: Make) -> Make:
        kind = StrategyKind(make, settings or {}, paired, distribution, smallest, memory, instead)
        STRATEGIES.add(name, kind, summary_of(make), source)
        return make

    return register


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def strategy_name(strategy: Choice) -> str:
    """Return the name of a strategy in messages."""
    return strategy if isinstance(strategy, str) else getattr(strategy, "__name__", type(strategy).__name__)


def get_strategy(name: Choice) -> StrategyKind:
    """Return the strategy called `name`, or that a caller's function makes (`es.strategies._given`).

    Raises:
        UnknownName: not registered; says the right name for evosax's spellings, and why for a strategy left out.

    >>> get_strategy("Sep_CMA_ES")
    Traceback (most recent call last):
    pruning.errors.UnknownName: unknown strategy 'Sep_CMA_ES': did you mean 'sep-cma-es'?
    """
    if not isinstance(name, str):
        return import_module("es.strategies._given").given_kind(name)
    if name in STRATEGIES:
        return STRATEGIES[name].value
    plain = _plain(name)
    for left_out, reason in LEFT_OUT.items():
        if plain == _plain(left_out):
            raise UnknownName(f"strategy {left_out!r} is left out: {reason}")
    spellings = _OTHER_SPELLINGS | {_plain(known): known for known in STRATEGIES.names()}
    if plain in spellings:
        raise UnknownName(f"unknown strategy {name!r}: did you mean {spellings[plain]!r}?")
    raise unknown("strategy", name, STRATEGIES.names())


def make_strategy(
    name: Choice,
    population: int,
    dims: int,
    sigma: float,
    hyperparameters: Mapping[str, float] | None = None,
) -> Strategy:
    """Return the strategy called `name` for `dims` weights.

    Args:
        name: the name of the strategy, or a function that makes one.
        population: members in each generation.
        dims: number of weights that are searched.
        sigma: the standard deviation of each weight in the first population.
        hyperparameters: those to set; the others have their defaults.

    Raises:
        UnknownName: no such strategy, or no such hyper-parameter of it.
        BadValue: `sigma` or a hyper-parameter out of range, a population that is too small or odd where members are
            paired, no weight to search, or more memory than `MEMORY_LIMIT`.

    >>> snes = make_strategy("snes", population=8, dims=3, sigma=0.1)
    >>> snes.ask(jax.random.key(1), snes.init(jax.random.key(0), jax.numpy.zeros(3)))[0].shape
    (8, 3)
    """
    kind, name = get_strategy(name), strategy_name(name)
    values = _checked(name, kind, hyperparameters or {})
    if not (math.isfinite(sigma) and sigma > 0):
        raise BadValue(f"sigma must be more than 0, not {sigma:g}")
    if population < kind.smallest:
        raise BadValue(f"strategy {name!r} needs a population of at least {kind.smallest}, not {population}")
    if kind.paired and population % 2:
        nearest = f"{population - 1} or {population + 1}" if population > kind.smallest else f"{population + 1}"
        raise BadValue(f"strategy {name!r} pairs its members and needs an even population, not {population}: {nearest}")
    if dims < 1:
        raise BadValue(f"strategy {name!r} has no weight to search")
    _check_memory(name, kind, population, dims, values)
    return kind.make(population, dims, float(sigma), values)


def _checked(name: str, kind: StrategyKind, given: Mapping[str, float]) -> dict[str, float]:
    for key, value in given.items():
        if key not in kind.settings:
            if not kind.settings:
                raise UnknownName(f"unknown {name} hyper-parameter {key!r}: it has none")
            raise unknown(f"{name} hyper-parameter", key, kind.settings)
        if not kind.settings[key].allows(value):
            raise BadValue(f"{key} of strategy {name!r} must be {kind.settings[key]}, not {value:g}")
    return kind.hyperparameters | {key: float(value) for key, value in given.items()}


def _check_memory(name: str, kind: StrategyKind, population: int, dims: int, values: Mapping[str, float]) -> None:
    if kind.memory is None:
        return
    needed, what = kind.memory(population, dims, values)
    if needed <= MEMORY_LIMIT:
        return
    fits, too_many = 0, dims
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if kind.memory(population, middle, values)[0] <= MEMORY_LIMIT:
            fits = middle
        else:
            too_many = middle
    raise BadValue(
        f"strategy {name!r} needs {needed / 2**30:.1f} GiB for {dims:,} weights ({what}), over the limit of "
        f"{MEMORY_LIMIT / 2**30:g} GiB or {fits:,} weights at a population of {population:,}; use {kind.instead}"
    )


def require_per_weight_std(name: Choice) -> None:
    """Check that |mean| / std ranks weights otherwise than |mean| does under the strategy called `name`.

    Raises:
        UnknownName: no such strategy.
        BadValue: it samples with one standard deviation for all weights; names those that do not.
    """
    kind, name = get_strategy(name), strategy_name(name)
    others = ", ".join(entry.name for entry in STRATEGIES if entry.value.distribution != "scalar")
    if kind.distribution == "unknown":
        raise BadValue(
            f"strategy {name!r} is an object that does not say the standard deviation of each weight; use criterion "
            f"magnitude, or a strategy by its name: {others}"
        )
    if kind.distribution == "scalar":
        raise BadValue(
            f"strategy {name!r} samples with one standard deviation for all weights, so |mean| / std ranks them as "
            f"|mean| does; use criterion magnitude, or one of {others}"
        )
