"""Rows of tables, alone and in bags."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.translation.operations.registry import operation


@operation("embedding")
def _embedding(weight: Any, indices: Any, padding_idx: int = -1, *_: Any) -> jax.Array:
    """Rows of a table; that of padding has no derivative."""
    rows = weight[indices]
    if padding_idx < 0:
        return rows
    return jnp.where((indices == padding_idx)[..., None], jax.lax.stop_gradient(rows), rows)


@operation("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[jax.Array, ...]:
    """The sum, mean or maximum (modes 0, 1, 2) of the rows of each bag; an empty bag gives 0.

    torch also returns three arrays for its derivative, which are left out.
    """
    bags = len(offsets) - include_last_offset
    counted = indices != padding_idx
    bag = jnp.where(counted, jnp.searchsorted(offsets[:bags], jnp.arange(len(indices)), side="right") - 1, bags)
    own = bag[None, :] == jnp.arange(bags)[:, None]
    rows = weight[jnp.where(counted, indices, 0)]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    sizes = own.sum(1)
    if mode == 2:
        highest = jnp.where(own[:, :, None], rows[None], -jnp.inf).max(1)
        result = jnp.where(sizes[:, None] > 0, highest, 0)
    else:
        result = jnp.where(own[:, :, None], rows[None], 0).sum(1)
        result = result / jnp.maximum(sizes, 1)[:, None] if mode == 1 else result
    return (result,)
