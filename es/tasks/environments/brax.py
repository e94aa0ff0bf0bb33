"""Environments of Brax: rigid bodies under continuous control."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.tasks.environments import Continuous, Environment, not_installed, suite
from pruning.errors import BadValue, UsageError, unknown

BACKENDS = ("generalized", "mjx", "positional", "spring")


@suite("brax", source="Freeman et al. 2021 (arXiv 2106.13281)")
def brax(name: str) -> Environment:
    """Rigid bodies in JAX; `ant/spring` chooses the physics, without it the environment's own."""
    with _quiet():
        try:
            from brax import envs  # pyright: ignore[reportAttributeAccessIssue] - an extra, rarely installed
        except ImportError as error:
            raise not_installed(f"brax:{name}", "brax") from error
        body, slash, backend = name.partition("/")
        if body not in envs._envs:
            raise unknown("brax environment", body, envs._envs)
        if slash and backend not in BACKENDS:
            raise unknown("brax backend", backend, BACKENDS)
        try:
            environment = envs.get_environment(body, **({"backend": backend} if slash else {}))
        except Exception as error:  # not every body exists in every backend, and each says so in its own way
            raise UsageError(f"brax:{name} cannot be made ({type(error).__name__}: {error})") from error
        size = environment.observation_size
    if not isinstance(size, int):
        raise BadValue(f"brax:{name}: observations must be one array, not {type(size).__name__}")

    # Without Brax's wrappers an environment neither counts steps nor resets itself. It draws nothing in a step.
    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        with _quiet():
            state = environment.reset(key)
        return jnp.asarray(state.obs, jnp.float32), state

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        del key
        with _quiet():
            state = environment.step(state, action)
        return jnp.asarray(state.obs, jnp.float32), state, jnp.asarray(state.reward, jnp.float32), state.done > 0

    actions = np.ones(environment.action_size, np.float32)
    return Environment(
        name=f"brax:{name}",
        observation_shape=(size,),
        action=Continuous(-actions, actions),
        max_steps=1000,  # what Brax's own training uses: its environments have no limit themselves
        reset=reset,
        step=step,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Brax, which warns that it is not maintained, and of what its own libraries deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
