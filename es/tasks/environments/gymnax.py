"""Environments of gymnax: classic control, MinAtar, bsuite and a few more."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.tasks.environments import Continuous, Discrete, Environment, not_installed, suite
from pruning.errors import BadValue, UsageError, unknown


@suite("gymnax", source="Lange 2022 (github.com/RobertTLange/gymnax)")
def gymnax(name: str) -> Environment:
    """Classic control, MinAtar and bsuite in JAX."""
    try:
        import gymnax as library
    except ImportError as error:  # of gymnax itself, or of six, which it needs and does not declare
        raise not_installed(f"gymnax:{name}", "gymnax") from error
    if name not in library.registered_envs:
        raise unknown("gymnax environment", name, library.registered_envs)
    try:
        environment, params = library.make(name)
    except Exception as error:  # one of them downloads its data, and anything may come of that
        raise UsageError(f"gymnax:{name} cannot be made here ({type(error).__name__}: {error})") from error
    observation, _ = jax.eval_shape(lambda key: environment.reset_env(key, params), jax.random.key(0))

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        observation, state = environment.reset_env(key, params)
        return _array(observation), state

    # `step` would reset at every step. `step_env` ends an episode only where the environment itself does: its clock
    # (`is_truncated`: state.time >= max_steps_in_episode) is left to `step`, that is here to whoever rolls out.
    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        observation, state, reward, done, _ = environment.step_env(key, state, action, params)
        return _array(observation), state, jnp.asarray(reward, jnp.float32), jnp.asarray(done, bool)

    return Environment(
        name=f"gymnax:{name}",
        observation_shape=observation.shape or (1,),
        action=_action(f"gymnax:{name}", environment.action_space(params)),
        max_steps=int(params.max_steps_in_episode),
        reset=reset,
        step=step,
    )


def _array(observation: Any) -> jax.Array:
    return jnp.atleast_1d(jnp.asarray(observation, jnp.float32))


def _action(name: str, space: Any) -> Discrete | Continuous:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
        return Continuous(low, high)
    raise BadValue(f"{name}: actions must be discrete or a box, not {type(space).__name__}")
