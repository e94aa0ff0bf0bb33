"""Algorithms of evosax as people hold them: a class, an instance, or a function that makes one.

A search makes its strategy anew for every level, around the weights that survive. An instance is made again by its own
class, with the arguments that it keeps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.strategies import Setting, Strategy, StrategyKind
from es.strategies._evosax import OWN, adapt, replaced
from pruning.calls.users_code import users_code
from pruning.errors import BadValue

Factory = Callable[[int, jax.Array], Any]

_FIRST = ("population_size", "solution")
_STD = "std_init"


@dataclass(frozen=True, eq=False)
class Remade:
    """A function that makes an instance's like, for another number of weights.

    Attributes:
        algorithm: the instance.
    """

    algorithm: Any

    @property
    def __name__(self) -> str:
        """What it is called in records."""
        return type(self.algorithm).__name__

    def __call__(self, population: int, solution: jax.Array) -> Any:
        """Return an instance with the same arguments; raises `BadValue` for one that does not keep them."""
        kind, kept = type(self.algorithm), {}
        for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
            if name in _FIRST or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if not hasattr(self.algorithm, name):
                raise BadValue(
                    f"strategy: this {kind.__name__} does not keep its argument {name!r}, and cannot be made for fewer "
                    "weights; give a function (population_size, solution) that makes it"
                )
            kept[name] = getattr(self.algorithm, name)
        return kind(population, solution, **kept)

    def check(self, population: int, default: int, dims: int | None = None) -> int:
        """Return the population, which is the instance's own.

        Args:
            population: what the search says.
            default: what it says where nobody said anything.
            dims: weights that are evolved, where that is known.

        Raises:
            BadValue: another population, or another number of weights.
        """
        own, weights = getattr(self.algorithm, "population_size", population), getattr(self.algorithm, "num_dims", dims)
        if population not in (own, default):
            raise BadValue(f"strategy: this {self.__name__} has a population of {own}, and population is {population}")
        if dims is not None and weights != dims:
            raise BadValue(
                f"strategy: this {self.__name__} was made for {weights:,} weights, and {dims:,} are evolved here: make "
                f"it with solution=jnp.zeros({dims}), or give the class"
            )
        return own


def given_kind(factory: Factory) -> StrategyKind:
    """Return a caller's own strategy as one of ours; raises `BadValue` for what is no algorithm of evosax's kind.

    >>> from evosax.algorithms import SNES
    >>> kind = given_kind(SNES)
    >>> kind.distribution, sorted(kind.settings)
    ('unknown', ['lr_std_init'])
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    params = _made(name, factory, 4, 2).default_params
    settings = {key: Setting(OWN) for key in _numbers(params) if key != _STD}

    def make(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
        algorithm = _made(name, factory, population, dims)
        params = replaced(algorithm.default_params, values, settings)
        if hasattr(params, _STD):
            params = params.replace(**{_STD: jnp.float32(sigma)})
        strategy = adapt(algorithm, params, lambda state: jnp.float32(jnp.nan))
        with users_code(f"the strategy {name!r}", BadValue):
            shape = jax.eval_shape(lambda: _first_population(strategy, dims)).shape
        if shape != (population, dims):
            raise BadValue(
                f"the strategy {name!r} asks for a population of shape {list(shape)}, not {[population, dims]}"
            )
        return strategy

    return StrategyKind(make, settings, paired=False, distribution="unknown", smallest=1, memory=None, instead="")


def strategy_behaviour(strategy: Strategy, population: int, dims: int) -> list[float]:
    """Return a few numbers that tell strategies apart: what two generations make of the mean and of the population."""
    key, mean = jax.random.key(0), jnp.zeros(dims)
    state = strategy.init(key, mean)
    for _ in range(2):
        members, state = strategy.ask(key, state)
        state = strategy.tell(key, members, jnp.arange(population, dtype=jnp.float32), state)
    members, state = strategy.ask(key, state)
    return np.asarray(jnp.concatenate([strategy.mean(state)[:8], members[0, :8]]), np.float64).tolist()


def _first_population(strategy: Strategy, dims: int) -> jax.Array:
    key = jax.random.key(0)
    members, state = strategy.ask(key, strategy.init(key, jnp.zeros(dims)))
    state = strategy.tell(key, members, jnp.arange(len(members), dtype=jnp.float32), state)
    if strategy.mean(state).shape != (dims,):
        raise BadValue("its state has no one mean of the shape of a solution, so that there is no network to prune")
    return members


def _made(name: str, factory: Factory, population: int, dims: int) -> Any:
    with users_code(f"the strategy {name!r} for a population of {population} and {dims:,} weights", BadValue):
        made = factory(population, jnp.zeros(dims))
        missing = [part for part in ("init", "ask", "tell", "default_params") if not hasattr(made, part)]
        if missing or not hasattr(made, "get_mean"):
            raise BadValue(
                f"the strategy {name!r} must make an algorithm of evosax that searches around a mean, and "
                f"{type(made).__name__} has no {(missing or ['get_mean'])[0]}"
            )
        return made


def _numbers(params: Any) -> list[str]:
    if not is_dataclass(params):
        return []
    return [field.name for field in fields(params) if np.ndim(getattr(params, field.name)) == 0]
