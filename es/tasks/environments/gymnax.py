"""Environments of gymnax: classic control, MinAtar, bsuite and a few more."""

from __future__ import annotations

from es.tasks.environments import Environment, not_installed, suite
from es.tasks.environments.given import with_keys
from pruning.errors import UsageError, unknown


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
    return with_keys(f"gymnax:{name}", environment, params)
