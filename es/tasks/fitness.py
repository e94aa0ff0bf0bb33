"""A fitness function of the caller's, of parameters and a random key, instead of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from es.coordinates import Space, unpack
from es.network import Arrays
from es.tasks import Measured
from es.tasks.evaluation import evaluation_keys


@dataclass(frozen=True, eq=False)
class OwnFitness:
    """Fitness is the mean over keys; all members of a generation see the same ones.

    Attributes:
        function: `function(params, key)` returns one number; `params` are all arrays by name. Pure.
        higher_is_better: whether more of it is better.
        space: the evolved parameters.
        keys: of each generation.
        validation_keys: how many keys choices are made on.
        test_keys: how many are only reported on.
        seed: of these keys.
        params: all arrays, for `flops` alone.
    """

    function: Callable[[Arrays, jax.Array], jax.Array]
    higher_is_better: bool
    space: Space
    keys: int
    validation_keys: int
    test_keys: int
    seed: int
    params: Arrays = field(repr=False)
    _measure: Callable[[Arrays], jax.Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_measure", jax.jit(self._over_evaluation_keys))

    @property
    def flops(self) -> float:
        """Operations of one member in one generation, counted by the compiler."""
        costs: Any = jax.jit(self.function).lower(dict(self.params), jax.random.key(0)).cost_analysis()
        return self.keys * float(costs.get("flops", 2.0 * self.space.size))

    @property
    def data(self) -> tuple[()]:
        """Nothing: the function holds what it needs."""
        return ()

    def losses(
        self, data: Any, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
    ) -> tuple[jax.Array, tuple[()]]:
        """Return every member's loss, [P] float32: its mean fitness, or the negative of it."""
        del data
        keys = jax.random.split(key, self.keys)

        def loss(vector: jax.Array) -> jax.Array:
            params = {**fixed, **unpack(self.space, where, vector)}
            return self._sign * self._over(params, keys).mean()

        return jax.vmap(loss)(population), ()

    def after_generation(self, fixed: Arrays, seen: tuple[()]) -> Arrays:
        """Return `fixed`: a fitness function leaves nothing behind."""
        del seen
        return fixed

    def measure(self, params: Arrays) -> Measured:
        """Return the mean fitness over the validation keys and over the test keys."""
        values = self._measure(dict(params))
        validation = float(values[: self.validation_keys].mean())
        test = float(values[self.validation_keys :].mean()) if self.test_keys else None
        return Measured(self._sign * validation, validation, None if test is None else self._sign * test, test)

    @property
    def _sign(self) -> float:
        return -1.0 if self.higher_is_better else 1.0

    def _over(self, params: Arrays, keys: jax.Array) -> jax.Array:
        values = jax.vmap(self.function, in_axes=(None, 0))(params, keys)
        return jnp.asarray(values, jnp.float32).reshape(len(keys))

    def _over_evaluation_keys(self, params: Arrays) -> jax.Array:
        return self._over(params, evaluation_keys(self.seed, self.validation_keys, self.test_keys))
