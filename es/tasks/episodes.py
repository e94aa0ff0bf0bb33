"""Episodes: all members of a population play the same ones at once, and what they observe is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from es.tasks.environments import Continuous, Discrete, Environment
from pruning.errors import BadValue

Act = Callable[[jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Statistics of observations.

    Attributes:
        count: float32 scalar, or one for each member.
        mean: of an observation's shape, or one for each member.
        var: likewise; of the whole, not an estimate from a sample.
    """

    count: jax.Array
    mean: jax.Array
    var: jax.Array

    @classmethod
    def of(cls, observations: jax.Array, chosen: jax.Array) -> Moments:
        """Return the statistics of the chosen observations: [..., *shape] by a boolean [...]."""
        axes = tuple(range(chosen.ndim))
        chosen = chosen.reshape(*chosen.shape, *[1] * (observations.ndim - chosen.ndim))
        count = chosen.sum(dtype=jnp.float32)
        # Whatever is not chosen may be infinite: it is replaced, not multiplied by zero.
        mean = jnp.where(chosen, observations, 0.0).sum(axes) / jnp.maximum(count, 1.0)
        var = jnp.where(chosen, (observations - mean) ** 2, 0.0).sum(axes) / jnp.maximum(count, 1.0)
        return cls(count, mean, var)

    def merge(self, other: Moments) -> Moments:
        """Return the statistics of both together (Chan et al. 1983)."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1.0)
        delta = other.mean - self.mean
        mean = self.mean + share * delta
        var = (1 - share) * self.var + share * other.var + share * (1 - share) * delta**2
        return Moments(count, jnp.where(count > 0, mean, self.mean), jnp.where(count > 0, var, self.var))

    def together(self) -> Moments:
        """Return the statistics over all members, of statistics with one row for each."""
        count = self.count.sum()
        rows = self.count.reshape(-1, *[1] * (self.mean.ndim - 1)) / jnp.maximum(count, 1.0)
        mean = (rows * self.mean).sum(0)
        return Moments(count, mean, (rows * (self.var + (self.mean - mean) ** 2)).sum(0))


def rollout(
    environment: Environment, act: Act, keys: jax.Array, *, members: int, steps: int, observed: bool
) -> tuple[jax.Array, Moments]:
    """Play the same episodes with every member, until all have ended or `steps` are taken.

    An episode's key is split into that of its reset and that of its steps; step t uses the latter folded with t.

    Args:
        environment: the environment to play.
        act: maps observations [P, E, *shape] to outputs [P, E, environment.outputs].
        keys: [E], one for each episode.
        members: P.
        steps: the most steps of an episode.
        observed: whether to gather statistics.

    Returns:
        Returns [P, E] float32, and each member's statistics of the observations that it acted on (of none if not
        `observed`).
    """
    starts, later = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    first, state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), jax.vmap(environment.reset)(starts)
    )
    step_all = jax.vmap(jax.vmap(environment.step), in_axes=(None, 0, 0))
    nothing = jnp.zeros((members, *environment.observation_shape))
    alive = jnp.ones((members, len(keys)), bool)

    def goes_on(carry: Any) -> jax.Array:
        time, _, _, alive, _, _ = carry
        return (time < steps) & alive.any()

    def advance(carry: Any) -> Any:
        time, observations, state, alive, returns, moments = carry
        outputs = act(observations).astype(jnp.float32)
        if outputs.shape[2:] != (environment.outputs,):
            shape, takes = list(outputs.shape[2:]), environment.outputs
            raise BadValue(f"{environment.name} takes {takes} outputs of the network, not outputs of shape {shape}")
        if observed:
            finite = jnp.isfinite(observations).all(tuple(range(2, observations.ndim)))
            moments = jax.vmap(lambda old, o, chosen: old.merge(Moments.of(o, chosen)))(
                moments, observations, alive & finite
            )
        times = jax.vmap(jax.random.fold_in, in_axes=(0, None))(later, time)
        observations, new, reward, done = step_all(times, state, action_of(environment.action, outputs))
        # Finished episodes are stepped on with the others, which costs less than to hold their states.
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new, state)
        reward = jnp.where(jnp.isnan(outputs).any(-1), jnp.nan, reward)
        returns = returns + jnp.where(alive, reward, 0.0)
        return time + 1, observations, state, alive & ~done & ~jnp.isnan(returns), returns, moments

    nobody = Moments(jnp.zeros(members), nothing, nothing)
    carry = jnp.int32(0), first, state, alive, jnp.zeros(alive.shape), nobody
    *_, returns, moments = jax.lax.while_loop(goes_on, advance, carry)
    return returns, moments


def action_of(action: Discrete | Continuous, outputs: jax.Array) -> jax.Array:
    """Return the actions that outputs [..., n] stand for: the highest one's index, or tanh scaled to the bounds.

    >>> action_of(Discrete(3), jnp.array([0.1, 0.5, 0.2])).item()
    1
    """
    if isinstance(action, Discrete):
        return jnp.argmax(outputs, -1).astype(jnp.int32)
    middle, half = jnp.asarray(action.high + action.low) / 2, jnp.asarray(action.high - action.low) / 2
    return middle + half * jnp.tanh(outputs).reshape(*outputs.shape[:-1], *action.shape)
