"""Random keys in an optimizer's state, as the plain numbers that a checkpoint can hold, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def without_keys(tree: Any) -> Any:
    """Return a tree with its random keys as plain numbers.

    >>> without_keys({"key": jax.random.key(0), "w": 1.0})
    {'key': Array([0, 0], dtype=uint32), 'w': 1.0}
    """
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def with_keys(plain: Any, like: Any) -> Any:
    """Return a tree with plain numbers as random keys where `like` has some.

    >>> like = {"key": jax.random.key(0)}
    >>> with_keys(without_keys(like), like)["key"] == like["key"]
    Array(True, dtype=bool)
    """

    def key(leaf: Any, wanted: Any) -> Any:
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(wanted)) if _is_key(wanted) else leaf

    return jax.tree.map(key, plain, like)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
