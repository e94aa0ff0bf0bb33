"""Environments of Brax: rigid bodies under continuous control."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax

from es.tasks.environments import Environment, not_installed, suite
from es.tasks.environments.given import of_bodies
from pruning.errors import UsageError, unknown

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
        made = of_bodies(f"brax:{name}", environment)

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        with _quiet():
            return made.reset(key)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        with _quiet():
            return made.step(key, state, action)

    return replace(made, reset=reset, step=step)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Brax, which warns that it is not maintained, and of what its own libraries deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
