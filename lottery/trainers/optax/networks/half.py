"""A network that computes in bfloat16, with its weights and its outputs as they were."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

_WIDE = (jnp.dtype("float32"), jnp.dtype("float64"))
_NARROW = (jnp.dtype("bfloat16"),)


def in_half(network: Callable[..., Any], wide: Collection[str]) -> Callable[..., Any]:
    """Return a function of arrays, inputs (and more) that computes in bfloat16; what it returns is float32.

    Args:
        network: the function.
        wide: names of arrays that stay as they are: running statistics.

    >>> in_half(lambda params, x: x @ params["w"], ())({"w": jnp.ones((2, 1))}, jnp.full((1, 2), 1 + 2**-9)).item()
    2.0
    """

    def computed(arrays: Mapping[str, Any], inputs: Any, *more: Any) -> Any:
        narrow = {name: array if name in wide else _cast(array, _WIDE, "bfloat16") for name, array in arrays.items()}
        return _cast(network(narrow, _cast(inputs, _WIDE, "bfloat16"), *more), _NARROW, "float32")

    return computed


def _cast(tree: Any, given: Collection[Any], wanted: str) -> Any:
    def one(leaf: Any) -> Any:
        return leaf.astype(wanted) if getattr(leaf, "dtype", None) in given else leaf

    return jax.tree.map(one, tree)
