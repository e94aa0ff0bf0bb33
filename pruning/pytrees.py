"""Masks on JAX pytrees: names for leaves, and the one place where a tree is masked.

A leaf's name joins the keys on its path with dots, so that a flat `{"fc.weight": …}` and a nested
`{"fc": {"weight": …}}` have the same names. Two leaves of one name are an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey, tree_flatten_with_path

from pruning.errors import MaskMismatch
from pruning.masks.fitting import Keeps, fitted


def leaf_names(tree: Any) -> list[str]:
    """Return the dotted name of every leaf, in JAX's order; raises `MaskMismatch` where two are the same.

    >>> leaf_names({"dense": {"kernel": 1, "bias": 2}, "stack": [3, 4]})
    ['dense.bias', 'dense.kernel', 'stack.0', 'stack.1']
    """
    names = [".".join(_key(part) for part in path) for path, _ in tree_flatten_with_path(tree)[0]]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise MaskMismatch(f"two leaves of the tree have the name {twice[0]!r}")
    return names


def match_leaves(wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Map each wanted name to the leaf that it means; a name that means none is left out.

    An exact match wins. Otherwise what Flax puts around the paths of a module does not count: `params.` in variables of
    Linen, `.value` in a state of nnx.

    >>> match_leaves(["fc.kernel", "w"], ["params.fc.kernel", "w"])
    {'fc.kernel': 'params.fc.kernel', 'w': 'w'}
    """
    known = list(known)
    own = {_own_path(name): name for name in known} | {name: name for name in known}
    found = {name: own.get(name) or own.get(_own_path(name)) for name in wanted}
    return {name: leaf for name, leaf in found.items() if leaf is not None}


def apply_mask(tree: Any, mask: Keeps) -> Any:
    """Return `tree` with its removed weights set to 0.

    Works on any pytree (dict, list, Flax, Equinox) and under `jit`, `vmap` and `grad`. A mask of a Flax module fits the
    module's variables and its state as well (see `match_leaves`).

    Raises:
        MaskMismatch: names or shapes that do not fit (with the closest names).

    >>> apply_mask({"w": jnp.array([2.0, 3.0])}, {"w": np.array([True, False])})["w"].tolist()
    [2.0, 0.0]
    """
    leaves, structure = jax.tree_util.tree_flatten(tree)
    names = leaf_names(tree)
    matched = match_leaves(mask, names)
    shapes = {name: np.shape(leaf) for name, leaf in zip(names, leaves, strict=True)}
    keeps = fitted({matched.get(name, name): keep for name, keep in mask.items()}, shapes)
    masked = [
        jnp.where(keeps[name], leaf, jnp.zeros((), leaf.dtype)) if name in keeps else leaf
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, masked)


def _own_path(name: str) -> str:
    return name.removeprefix("params.").removesuffix(".value")


def _key(part: Any) -> str:
    match part:
        case DictKey(key=key) | FlattenedIndexKey(key=key):
            return str(key)
        case SequenceKey(idx=index):
            return str(index)
        case GetAttrKey(name=name):
            return name
        case _:
            return str(part)
