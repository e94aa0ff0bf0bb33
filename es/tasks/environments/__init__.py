"""Environments by name (`gymnax:CartPole-v1`): one file for each suite, found by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, UnknownName, UsageError
from pruning.registry import Registry

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions: an int32 scalar from 0."""

    n: int


@dataclass(frozen=True, eq=False)
class Continuous:
    """A float32 array between two finite bounds.

    Attributes:
        low: float32, of the action's shape.
        high: float32, of the same shape.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise BadValue("a continuous action needs finite bounds: the network's outputs are scaled to them")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return self.low.shape


@dataclass(frozen=True, eq=False)
class Environment:
    """One environment as pure functions of single episodes, which never begins a new episode by itself.

    Attributes:
        name: the name that users type, with its suite.
        observation_shape: the shape of one observation, at least one axis; images have their channels last.
        action: what `step` takes.
        max_steps: the environment's own time limit, or None. `step` knows nothing of it: whoever rolls out counts.
        reset: `reset(key)` returns the first observation (float32) and the state (any pytree).
        step: `step(key, state, action)` returns observation, state, reward (float32 scalar) and whether the episode
            ended by itself (bool scalar).
    """

    name: str
    observation_shape: tuple[int, ...]
    action: Discrete | Continuous
    max_steps: int | None
    reset: Callable[[jax.Array], tuple[jax.Array, Any]]
    step: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any, jax.Array, jax.Array]]

    @property
    def outputs(self) -> int:
        """Outputs that a network needs: one for each discrete action, or for each number of a continuous one."""
        return self.action.n if isinstance(self.action, Discrete) else math.prod(self.action.shape)


Make = Callable[[str], Environment]

SUITES: Registry[Make] = Registry("environment suite", "es.tasks.environments", listed="environments")


def suite(name: str, *, source: str) -> Callable[[Make], Make]:
    """Register `make(environment_name)` under the prefix that people type before the colon."""
    return SUITES.registering(name, source)


def is_environment(text: str) -> bool:
    """Return whether a text names an environment: it has a known suite before its colon. Imports no suite.

    >>> is_environment("gymnax:CartPole-v1"), is_environment("digits"), is_environment("my.module:data")
    (True, False, False)
    """
    prefix, colon, _ = text.partition(":")
    return bool(colon) and prefix in SUITES


def is_environment_object(thing: Any) -> bool:
    """Say whether this is an environment, or one with its parameters `(environment, params)`.

    >>> is_environment_object("gymnax:CartPole-v1"), is_environment_object(([1], [2]))
    (False, False)
    """
    if isinstance(thing, tuple) and len(thing) == 2:
        return is_environment_object(thing[0])
    return callable(getattr(thing, "reset", None)) and callable(getattr(thing, "step", None))


def make_environment(text: str) -> Environment:
    """Return the environment that `suite:name` stands for.

    Raises:
        UnknownName: a suite or a name that does not exist, with the nearest that do.
        UsageError: a suite that is not installed, or an environment that cannot be made here.
    """
    prefix, colon, name = text.partition(":")
    if not colon:
        raise UnknownName(f"environment {text!r}: expected suite:name, like gymnax:CartPole-v1")
    return SUITES[prefix].value(name)


def not_installed(name: str, package: str) -> UsageError:
    """Build the error for an environment whose suite cannot be imported; the extra has the suite's name.

    >>> not_installed("brax:ant", "brax")
    UsageError("brax:ant needs brax: pip install 'lottery-tickets[brax]'")
    """
    return UsageError(f"{name} needs {package}: pip install 'lottery-tickets[{package}]'")
