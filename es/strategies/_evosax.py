"""What every strategy shares: from an evosax algorithm to pure functions of a state of plain arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from es.strategies import Memory, Setting, State, Strategy
from es.strategies._ties import differ, failed_are_worst, nearest_best

OWN = math.nan
"""Default of a hyper-parameter whose value evosax derives from the number of weights or the population."""


def positive(default: float) -> Setting:
    """Return a setting of more than 0."""
    return Setting(default, low=0, above=True)


def nonnegative(default: float) -> Setting:
    """Return a setting of 0 or more.

    >>> [nonnegative(0.1).allows(value) for value in (0, 2, -1)]
    [True, True, False]
    """
    return Setting(default, low=0)


def rate(default: float) -> Setting:
    """Return a setting between 0 and 1."""
    return Setting(default, low=0, high=1)


def factor(default: float) -> Setting:
    """Return a setting of more than 0 and at most 1."""
    return Setting(default, low=0, high=1, above=True)


def count(default: int, low: int = 1) -> Setting:
    """Return a whole setting of at least `low`."""
    return Setting(default, low=low, whole=True)


def elite_ratio(high: float = 1) -> Setting:
    """Return the fraction of the population that is recombined."""
    return Setting(0.5, low=0, high=high, above=True)


def adapt(
    algorithm: Any,
    params: Any,
    std: Callable[[State], jax.Array],
    *,
    start: Callable[[State], State] = lambda state: state,
    ties: Callable[[Any, jax.Array], Any] = lambda params, fitness: params,
    teaches: Callable[[jax.Array, State], jax.Array] = differ,
    before_tell: Callable[[jax.Array, jax.Array, State], tuple[jax.Array, jax.Array, State]] = lambda *told: told,
    after_tell: Callable[[State], State] = lambda state: state,
    clock: tuple[str, ...] = (),
    centre: tuple[str, ...] = ("mean",),
) -> Strategy:
    """Return an evosax algorithm as a `Strategy`.

    A generation in which no member is better than another teaches nothing: the state stays as it is, but for what
    follows from time alone (learning rates of an optimizer, `clock`, `after_tell`).

    Args:
        algorithm: an instance for one population and number of weights.
        params: its parameters.
        std: a function of the state, [D] or a scalar.
        start: changes the first state.
        ties: `ties(params, fitness)` returns the parameters with what belongs to ranks shared among equal members.
        teaches: says of a fitness [P] and a state whether anything can be learned.
        before_tell: changes population, fitness and state before `tell` gets them.
        after_tell: changes the state after it.
        clock: fields of the state that follow from the number of generations alone.
        centre: fields of the state that `with_mean` sets.

    >>> from evosax.algorithms import HillClimbing
    >>> algorithm = HillClimbing(2, jnp.zeros(1))
    >>> found = adapt(algorithm, algorithm.default_params, lambda state: state.std)
    >>> state = found.init(jax.random.key(0), jnp.full(1, 3.0))
    >>> found.mean(state).tolist(), found.mean(found.with_mean(state, jnp.full(1, 5.0))).tolist()
    ([3.0], [5.0])
    """

    def init(key: jax.Array, mean: jax.Array) -> State:
        state = algorithm.init(key, jnp.asarray(mean, jnp.float32), params)
        # evosax begins with a best solution of NaN and a fitness of infinity; the mean keeps the state free of NaN
        known = [name for name in ("best_solution", "best_solution_shaped") if hasattr(state, name)]
        return _plain(start(state.replace(**{name: jnp.array(mean, jnp.float32) for name in known})))

    def ask(key: jax.Array, state: State) -> tuple[jax.Array, State]:
        population, state = algorithm.ask(key, state, params)
        return population.astype(jnp.float32), _plain(state)  # float64 where jax_enable_x64 is set

    def tell(key: jax.Array, population: jax.Array, fitness: jax.Array, state: State) -> State:
        fitness = failed_are_worst(jnp.asarray(fitness, jnp.float32))
        told, _ = algorithm.tell(key, *before_tell(population, fitness, state), ties(params, fitness))
        told = _plain(_with_best(told, population, fitness, state))
        return _plain(after_tell(_choose(teaches(fitness, state), told, _only_later(state, told, clock))))

    def with_mean(state: State, mean: jax.Array) -> State:
        return state.replace(**{name: jnp.array(mean, jnp.float32) for name in centre})

    return Strategy(
        init=init,
        ask=ask,
        tell=tell,
        mean=lambda state: state.mean,
        with_mean=with_mean,
        std=lambda state: jnp.broadcast_to(std(state), state.mean.shape),
    )


_BEST = {"best_solution": "best_fitness", "best_solution_shaped": "best_fitness_shaped"}


def _with_best(told: State, population: jax.Array, fitness: jax.Array, state: State) -> State:
    """Return the state after `tell`, with a best solution that does not depend on the order of equally good members."""
    nearest, known = nearest_best(population, fitness, state.mean), [name for name in _BEST if hasattr(state, name)]
    better = {name: jnp.min(fitness) < getattr(state, _BEST[name]) for name in known}
    return told.replace(**{name: jnp.where(better[name], nearest, getattr(state, name)) for name in known})


def _only_later(state: State, told: State, clock: tuple[str, ...]) -> State:
    """Return a state as it is one generation later if nothing was learned in it."""

    def later(old: Any, new: Any) -> Any:
        # a fitness to compare with is infinite until there is one
        return new if _is_schedule(old) else jnp.where(jnp.isinf(old), new, old)

    same = jax.tree.map(later, state, told, is_leaf=_is_schedule)
    return same.replace(**{name: getattr(told, name) for name in clock})


def _is_schedule(node: Any) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def _choose(condition: jax.Array, new: State, old: State) -> State:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), new, old)


def _plain(state: State) -> State:
    """Return the state as float32 and int32 arrays without weak types, so that it can be a loop's carry."""

    def strong(leaf: Any) -> jax.Array:
        kind = jnp.float32 if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else jnp.int32
        return jax.lax.convert_element_type(leaf, kind)

    return jax.tree.map(strong, state)


def replaced(params: Any, values: Mapping[str, float], names: Iterable[str]) -> Any:
    """Return evosax's parameters with those of `names` set that have a value; NaN leaves evosax's own."""
    return params.replace(**{name: values[name] for name in names if not math.isnan(values[name])})


def decayed(first: float, decay: float, least: float) -> Callable[[Any], jax.Array]:
    """Return the schedule max(first · decay^t, least), which never rises above `first`."""
    floor = min(least, first)
    return lambda step: jnp.maximum(jnp.float32(first) * jnp.float32(decay) ** jnp.asarray(step, jnp.int32), floor)


def adam(values: Mapping[str, float]) -> optax.GradientTransformation:
    """Return Adam with the learning rate `lr`, which decays by `lr_decay` a generation down to `lr_min`."""
    return optax.adam(decayed(values["lr"], values["lr_decay"], values["lr_min"]))


def sigma_schedule(sigma: float, values: Mapping[str, float]) -> Callable[[Any], jax.Array]:
    """Return `sigma`, which decays by `sigma_decay` a generation down to `sigma_min`.

    >>> schedule = sigma_schedule(1.0, {"sigma_decay": 0.5, "sigma_min": 0.2})
    >>> [round(float(schedule(generation)), 3) for generation in range(4)]
    [1.0, 0.5, 0.25, 0.2]
    """
    return decayed(sigma, values["sigma_decay"], values["sigma_min"])


CLOCK = ("generation_counter",)
"""The clock of a strategy whose standard deviation follows a schedule."""


def with_std(schedule: Callable[[Any], jax.Array]) -> Callable[[State], State]:
    """Return a function that sets the schedule's standard deviation for the next generation, after `tell`.

    evosax puts the one of the generation that is over, so that its first two generations have the same.

    >>> from evosax.algorithms import HillClimbing
    >>> algorithm = HillClimbing(2, jnp.zeros(1))
    >>> state = algorithm.init(jax.random.key(0), jnp.zeros(1), algorithm.default_params)
    >>> later = state.replace(generation_counter=3)
    >>> with_std(lambda generation: 10.0 * generation)(later).std
    30.0
    """
    return lambda state: state.replace(std=schedule(state.generation_counter))


def adam_settings(lr: float, decay: float, least: float) -> dict[str, Setting]:
    """Return the settings of `adam`.

    >>> {name: (setting.default, str(setting)) for name, setting in adam_settings(0.01, 0.9, 0.0).items()}
    {'lr': (0.01, 'more than 0'), 'lr_decay': (0.9, 'more than 0 and at most 1'), 'lr_min': (0.0, 'at least 0')}
    """
    return {"lr": positive(lr), "lr_decay": factor(decay), "lr_min": nonnegative(least)}


def sigma_settings(decay: float, least: float) -> dict[str, Setting]:
    """Return the settings of `sigma_schedule`.

    >>> {name: (setting.default, str(setting)) for name, setting in sigma_settings(0.9, 0.0).items()}
    {'sigma_decay': (0.9, 'more than 0 and at most 1'), 'sigma_min': (0.0, 'at least 0')}
    """
    return {"sigma_decay": factor(decay), "sigma_min": nonnegative(least)}


def matrices(number: Callable[[int], int]) -> Memory:
    """Return the memory of a strategy that has `number(population)` D × D matrices at the peak of a generation."""

    def memory(population: int, dims: int, values: Mapping[str, float]) -> tuple[int, str]:
        held = number(population)
        return 4 * held * dims**2, f"{held:,} matrices of {dims:,} × {dims:,} in float32"

    return memory
