"""Products of matrices of experts; attention itself falls apart into products and a softmax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.translation.operations.registry import operation


# transformers has an operation of its own for processors that lack torch's
@operation("_grouped_mm", "transformers::grouped_mm_fallback")
def _grouped_mm(one: Any, two: Any, ends: Any = None, bias: Any = None, dtype: Any = None) -> jax.Array:
    """[T, K] rows in groups that end at `ends` [E], each times its own of [E, K, N]; rows behind the last give 0.

    All products are made and each row's own is kept: how many rows a group has depends on values.
    """
    if ends is None or one.ndim != 2 or two.ndim != 3:
        if ends is None:
            return one @ two
        raise NotImplementedError("groups along another axis than the rows of the first matrix")
    group = jnp.searchsorted(ends, jnp.arange(len(one)), side="right")
    own = group[None, :] == jnp.arange(len(two))[:, None]
    products = jnp.einsum("tk,ekn->etn", one, two)
    result = jnp.where(own[:, :, None], products, 0).sum(0)
    return result if bias is None else result + bias
