"""Reading and writing by index and by mask, without shapes that depend on values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from es.translation.operations.registry import operation
from es.translation.refusals import DependsOnValues


@operation("index.Tensor", "_unsafe_index.Tensor")
def _index(array: Any, indices: Any) -> jax.Array:
    """By arrays of integers, or by masks that are known when the function is compiled."""
    if any(isinstance(index, Tracer) and index.dtype == bool for index in indices):
        raise DependsOnValues("x[mask] (aten::index)")
    return array[tuple(slice(None) if index is None else index for index in indices)]


@operation("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(array: Any, indices: Any, values: Any, accumulate: bool = False, unsafe: bool = False) -> jax.Array:
    """`x[index] = values`; where the index is a mask, values are put where it holds and nothing is counted."""
    values = jnp.asarray(values).astype(array.dtype)
    masks = [i for i, index in enumerate(indices) if index is not None and index.dtype == bool]
    if any(isinstance(indices[i], Tracer) for i in masks):
        mask = indices[masks[0]]
        others = [index for i, index in enumerate(indices) if index is not None and i != masks[0]]
        after = array.ndim - masks[0] - mask.ndim
        fits = values.ndim <= after or (values.ndim == after + 1 and values.shape[0] == 1)
        if others or not fits:
            raise DependsOnValues("x[mask] = y, with as many y as the mask holds (aten::index_put)")
        mask = mask.reshape(*mask.shape, *[1] * after)
        values = values.reshape(values.shape[values.ndim - after :]) if values.ndim > after else values
        return jnp.where(mask, array + values if accumulate else values, array)
    places = array.at[tuple(slice(None) if index is None else index for index in indices)]
    return places.add(values) if accumulate else places.set(values)


@operation("masked_scatter")
def _masked_scatter(array: Any, mask: Any, source: Any) -> jax.Array:
    """The n-th place that the mask holds gets the n-th element of the source."""
    mask = jnp.broadcast_to(mask, array.shape).reshape(-1)
    order = jnp.clip(jnp.cumsum(mask) - 1, 0, source.size - 1)
    return jnp.where(mask, source.reshape(-1)[order], array.reshape(-1)).reshape(array.shape)


@operation("index_add")
def _index_add(array: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> jax.Array:
    """Indices that occur twice add up."""
    moved = jnp.moveaxis(array, dim, 0).at[index].add(jnp.moveaxis(source, dim, 0) * alpha)
    return jnp.moveaxis(moved, 0, dim)
