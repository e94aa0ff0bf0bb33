"""Environments as objects: any with `reset` and `step` as gymnax or Brax have them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.tasks.environments import Continuous, Discrete, Environment
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, DataError

_LIMITS = ("max_steps_in_episode", "max_steps", "episode_length")


def given_environment(thing: Any) -> Environment:
    """Return the environment that an object stands for; raises `DataError` for one that does not work in JAX.

    >>> from types import SimpleNamespace
    >>> walk = {"num_actions": 2, "reset": lambda key: (np.zeros(1), 0), "step": lambda *_: None}
    >>> found = given_environment(SimpleNamespace(name="walk", **walk))
    >>> found.name, found.action, found.observation_shape
    ('walk', Discrete(n=2), (1,))
    """
    environment, params = thing if isinstance(thing, tuple) else (thing, getattr(thing, "default_params", None))
    name = getattr(environment, "name", None)
    name = name if isinstance(name, str) else type(environment).__name__
    what = f"the environment {name!r} (its reset and step must be functions of JAX with random keys)"
    with users_code(what, DataError):
        if hasattr(environment, "observation_size") and hasattr(environment, "action_size"):
            return of_bodies(name, environment)
        return with_keys(name, environment, params)


def with_keys(name: str, environment: Any, params: Any) -> Environment:
    """Return an environment of gymnax's kind: `reset(key, params)` and `step(key, state, action, params)`.

    Where it has `reset_env` and `step_env`, those are used: they neither reset by themselves nor look at a clock, which
    is left to whoever rolls out. A step returns observation, state, reward, whether the episode ended (or whether it
    was terminated, and whether it was cut off), and information that nobody looks at.

    Args:
        name: for people.
        environment: the object.
        params: its parameters, or None for one that takes none.

    >>> from types import SimpleNamespace
    >>> step = lambda key, state, action: (np.ones(1), state + 1, 0.5, state >= 3, {})
    >>> found = with_keys("walk", SimpleNamespace(num_actions=2, reset=lambda key: (np.zeros(1), 0), step=step), None)
    >>> observation, state, reward, done = found.step(jax.random.key(0), 3, jnp.int32(1))
    >>> found.action, observation.tolist(), state, float(reward), bool(done)
    (Discrete(n=2), [1.0], 4, 0.5, True)
    """
    more = () if params is None else (params,)
    whole = hasattr(environment, "reset_env") and hasattr(environment, "step_env")
    first, next_ = (environment.reset_env, environment.step_env) if whole else (environment.reset, environment.step)

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        observation, state = first(key, *more)
        return _array(observation), state

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        observation, state, reward, *ended = next_(key, state, action, *more)
        done = jnp.asarray(ended[0], bool) if len(ended) < 3 else jnp.asarray(ended[0], bool) | ended[1]
        return _array(observation), state, jnp.asarray(reward, jnp.float32), done

    observation, _ = jax.eval_shape(reset, jax.random.key(0))
    return Environment(
        name=name,
        observation_shape=observation.shape,
        action=_action(name, _space(environment, more)),
        max_steps=_limit(params, environment),
        reset=reset,
        step=step,
    )


def of_bodies(name: str, environment: Any) -> Environment:
    """Return an environment of Brax's kind: `reset(key)` and `step(state, action)` return one state with all in it.

    >>> from types import SimpleNamespace
    >>> still = SimpleNamespace(obs=np.zeros(2), reward=0.0, done=0.0)
    >>> body = {"observation_size": 2, "action_size": 3, "reset": lambda key: still, "step": lambda *_: still}
    >>> found = of_bodies("still", SimpleNamespace(**body))
    >>> found.observation_shape, found.outputs, found.max_steps
    ((2,), 3, 1000)
    """
    size = environment.observation_size
    if not isinstance(size, int):
        raise BadValue(f"{name}: observations must be one array, not {type(size).__name__}")

    # Without Brax's wrappers an environment neither counts steps nor resets itself. It draws nothing in a step.
    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        state = environment.reset(key)
        return jnp.asarray(state.obs, jnp.float32), state

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        del key
        state = environment.step(state, action)
        return jnp.asarray(state.obs, jnp.float32), state, jnp.asarray(state.reward, jnp.float32), state.done > 0

    actions = np.ones(environment.action_size, np.float32)
    # 1000 is what Brax's own training uses: its environments have no limit themselves
    limit = _limit(None, environment) or 1000
    return Environment(name, (size,), Continuous(-actions, actions), limit, reset, step)


def _array(observation: Any) -> jax.Array:
    return jnp.atleast_1d(jnp.asarray(observation, jnp.float32))


def _limit(*holders: Any) -> int | None:
    found = (getattr(holder, name, None) for holder in holders for name in _LIMITS)
    return next((int(limit) for limit in found if isinstance(limit, int | np.integer | jax.Array)), None)


def _space(environment: Any, more: tuple[Any, ...]) -> Any:
    """Return the description of the actions: a space, or their number."""
    space = getattr(environment, "action_space", None)
    return (space(*more) if callable(space) else space) or getattr(environment, "num_actions", None)


def _action(name: str, space: Any) -> Discrete | Continuous:
    if isinstance(space, int) or hasattr(space, "n"):
        return Discrete(int(getattr(space, "n", space)))
    if hasattr(space, "low"):
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
        return Continuous(low, high)
    kind = "nothing" if space is None else type(space).__name__
    raise BadValue(f"{name}: action_space must be discrete (n) or a box (low, high, shape), not {kind}")
