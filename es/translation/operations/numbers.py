"""Elementwise operations, copies and reductions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.translation.operations.registry import operation


@operation("copy", "_to_copy", "clone", "alias", "detach", "lift_fresh", "lift")
def _same(array: Any, source: Any = None, *_: Any, **__: Any) -> jax.Array:
    """The type and the shape are those of torch's result."""
    return array if source is None or not hasattr(source, "shape") else jnp.broadcast_to(source, array.shape)


@operation("_safe_softmax")
def _safe_softmax(array: Any, dim: int, dtype: Any = None) -> jax.Array:
    """A row that is masked as a whole gives zeros."""
    highest = array.max(dim, keepdims=True)
    empty = highest == -jnp.inf
    return jnp.where(empty, 0, jax.nn.softmax(jnp.where(empty, 0, array), axis=dim))


@operation("_is_all_true")
def _is_all_true(array: Any) -> jax.Array:
    """What `torch._check` asks of several conditions."""
    return array.all()


@operation("_is_any_true")
def _is_any_true(array: Any) -> jax.Array:
    """The same, for any of them."""
    return array.any()
