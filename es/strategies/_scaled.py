"""Standard deviations of their own for single tensors: a strategy that searches the weights divided by factors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from es.strategies import STRATEGIES, Choice, State, Strategy, get_strategy, strategy_name
from pruning.errors import BadValue


def scaled(strategy: Strategy, factors: NDArray[np.floating]) -> Strategy:
    """Return a strategy whose first standard deviation of every weight is `sigma` times its factor.

    It searches y = x / factor, with one sigma for all y: whatever the strategy adapts, it adapts in y, so that a step
    of the mean is as large beside a weight's own standard deviation as it was.

    Args:
        strategy: the strategy, for as many weights as there are factors.
        factors: more than 0, [D].

    >>> from es.strategies import make_strategy
    >>> wide = scaled(make_strategy("snes", population=8, dims=2, sigma=0.5), np.array([1.0, 4.0]))
    >>> state = wide.init(jax.random.key(0), jnp.array([3.0, 8.0]))
    >>> wide.std(state).tolist(), wide.mean(state).tolist()
    ([0.5, 2.0], [3.0, 8.0])
    """
    by = jnp.asarray(factors, jnp.float32)

    def ask(key: jax.Array, state: State) -> tuple[jax.Array, State]:
        population, after = strategy.ask(key, state)
        return population * by, after

    return Strategy(
        init=lambda key, mean: strategy.init(key, mean / by),
        ask=ask,
        tell=lambda key, population, fitness, state: strategy.tell(key, population / by, fitness, state),
        mean=lambda state: strategy.mean(state) * by,
        with_mean=lambda state, mean: strategy.with_mean(state, mean / by),
        std=lambda state: strategy.std(state) * by,
    )


def require_many_sigmas(name: Choice) -> None:
    """Raise `BadValue` for a strategy that has one standard deviation for all weights; names those that do not.

    >>> require_many_sigmas("snes")
    """
    if get_strategy(name).distribution in ("scalar", "unknown"):
        others = ", ".join(entry.name for entry in STRATEGIES if entry.value.distribution == "separable")
        raise BadValue(
            f"sigma_factors need a strategy with a sigma for every weight ({others}), not {strategy_name(name)!r}"
        )
