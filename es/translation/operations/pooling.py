"""Pooling to a given size."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.translation.operations.registry import operation


@operation("adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(array: Any, output_size: Any) -> tuple[jax.Array, jax.Array]:
    """Window i of n covers from ⌊i·size/n⌋ to ⌈(i+1)·size/n⌉; places count through all pooled axes."""
    counts = list(output_size)
    sizes = array.shape[-len(counts) :]
    places = np.arange(int(np.prod(sizes))).reshape(sizes)
    ranges = [
        [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(sizes, counts, strict=True)
    ]
    values, found = [], []
    for window in itertools.product(*ranges):
        inside = array[(..., *window)].reshape(*array.shape[: -len(counts)], -1)
        values.append(inside.max(-1))
        found.append(jnp.asarray(places[window].reshape(-1))[inside.argmax(-1)])
    shape = (*array.shape[: -len(counts)], *counts)
    return jnp.stack(values, -1).reshape(shape), jnp.stack(found, -1).reshape(shape)
