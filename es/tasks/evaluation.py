"""Keys of what networks are measured on: episodes for choices, and others that are only reported on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Keeps the episodes of evaluation apart from everything else that is drawn from the same seed.
EVALUATION = 0x636F6E74


def evaluation_keys(seed: int, validation: int, test: int) -> jax.Array:
    """Return keys of the validation episodes, then of the test episodes; the first stay the same if the number grows.

    >>> evaluation_keys(0, 2, 1).shape
    (3,)
    """
    parts = jax.random.split(jax.random.fold_in(jax.random.key(seed), EVALUATION))
    numbered = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jnp.concatenate([numbered(part, jnp.arange(n)) for part, n in zip(parts, (validation, test), strict=True)])
