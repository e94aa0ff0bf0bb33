"""A network that computes in bfloat16, with its weights and its outputs as they were."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.network import Apply, Arrays


def in_half(apply: Apply) -> Apply:
    """Return a network that computes in bfloat16; what it returns is float32, for the loss.

    >>> in_half(lambda params, x: x @ params["w"])({"w": jnp.ones((2, 1))}, jnp.full((1, 2), 1 + 2**-9)).item()
    2.0
    """

    def cast(tree: Any, wanted: Any, given: Any) -> Any:
        def one(leaf: Any) -> Any:
            kind = getattr(leaf, "dtype", None)
            return leaf.astype(wanted) if kind is not None and kind in given else leaf

        return jax.tree.map(one, tree)

    wide = (jnp.dtype("float32"), jnp.dtype("float64"))

    def applied(params: Arrays, inputs: Any) -> Any:
        narrow = cast((dict(params), inputs), jnp.bfloat16, wide)
        return cast(apply(*narrow), jnp.float32, (jnp.dtype(jnp.bfloat16),))

    return applied
