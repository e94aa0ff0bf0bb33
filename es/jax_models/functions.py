"""A plain JAX pair, a tree of parameters and a function of it, as a network of named arrays.

A leaf's name is its path, joined with dots (`pruning.pytrees.leaf_names`). Arrays are parameters; every other leaf
(a size, an activation function, a random key) belongs to the tree and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.network import Arrays, Network, taking_halves
from es.translation.fixed import released
from pruning.errors import BadValue, MaskMismatch, NothingToPrune, nearest
from pruning.jobs import Params
from pruning.mask import check_not_single
from pruning.masks.names import match_patterns
from pruning.pytrees import leaf_names, match_leaves
from pruning.uses.uses import NOT_LOOKED_AT, Uses

# What arrays that are no matrices are called, and the layers that hold nothing but such.
_NEVER = {"bias", "scale", "offset", "embedding", "embeddings", "embed"}
_TABLES = {"embedding", "embeddings", "embed"}
_LAYER = re.compile(r"(norms?|embed|embeddings?)$|^(bn|ln)$")


def jax_network(
    params_tree: Any, apply: Callable[[Any, Any], Any], fixed: Collection[str] = ()
) -> tuple[Network, Params]:
    """Return the network of a JAX pair, and its initial parameters.

    Args:
        params_tree: any pytree: dictionaries, lists, Flax variables, an Equinox module.
        apply: `apply(tree, inputs)` returns the outputs for a batch; it gets a tree of the same structure. Pure.
        fixed: names of arrays that are not evolved (statistics, caches).

    Returns:
        The network, whose evolved parameters are the floating-point arrays in the tree's order but for Flax's
        `batch_stats` (running statistics), and all arrays of the tree on the host, by name; 64-bit types become 32-bit
        ones unless `jax_enable_x64` is set.

    Raises:
        BadValue: `apply` cannot be called.
        MaskMismatch: two leaves of one name.

    >>> network, params = jax_network({"w": np.ones(2, "float32"), "steps": 3}, lambda tree, x: x @ tree["w"])
    >>> network.evolved, list(params), network.apply(params, jnp.ones((1, 2))).tolist()
    (('w',), ['w'], [2.0])
    """
    if not callable(apply):
        raise BadValue(f"expected a function apply(params, inputs), not {type(apply).__name__}")
    named = _named_arrays(params_tree)
    params = {name: np.array(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype)) for name, leaf in named.items()}

    def network_apply(arrays: Arrays, inputs: Any) -> Any:
        return apply(rebuild(params_tree, arrays), released(inputs))

    evolved = [name for name, array in params.items() if _is_float(array) and not _is_fixed(name, fixed)]
    halves = [name for name in evolved if jnp.iscomplexobj(params[name])]
    return Network(taking_halves(network_apply, halves), tuple(evolved)), params


def rebuild(tree: Any, params: Mapping[str, Any]) -> Any:
    """Return `tree` with the arrays named in `params` in place of its own; all else is kept.

    Raises:
        MaskMismatch: a name that is no array of the tree (with the closest ones), or another shape.

    >>> rebuild({"w": np.zeros(()), "act": "relu"}, {"w": 5.0})
    {'act': 'relu', 'w': 5.0}
    """
    known = _named_arrays(tree)
    matched = match_leaves(params, known)
    for name in params:
        if name not in matched:
            raise MaskMismatch(f"the tree has no array {name!r} (closest: {', '.join(nearest(name, known)) or 'none'})")
    leaves, structure = jax.tree.flatten(tree)
    new = {leaf: params[name] for name, leaf in matched.items()}
    for name, value in new.items():
        if np.shape(value) != known[name].shape:
            raise MaskMismatch(f"{name!r} has shape {known[name].shape} in the tree, not {np.shape(value)}")
    replaced = [new.get(name, leaf) for name, leaf in zip(leaf_names(tree), leaves, strict=True)]
    return jax.tree.unflatten(structure, replaced)


def jax_prunable(
    tree: Any,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    fixed: Collection[str] = (),
    uses: Uses = NOT_LOOKED_AT,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays that a mask covers, by name, in the tree's order.

    By default: floating-point arrays of two or more dimensions. Names of Flax, Equinox and Haiku are understood: what
    the array itself is called says that it is a bias, a scale or a table of embeddings (`bias`, `b`, `in_scale`,
    `offset`, `embedding`), and a word of what its layer is called that it normalizes or embeds (`LayerNorm_0`,
    `embed_tokens`), unless the array is a `kernel`. A layer called `upscale` or `unbias` is one like any other. What
    the function does with an array weighs more: a factor of a product with activations is prunable (but for tables of
    embeddings), and what it looks up or adds to activations is not.

    Args:
        tree: any pytree.
        only: shell-style patterns; where given, exactly the floating-point arrays that match.
        skip: shell-style patterns of arrays to leave dense.
        fixed: names of arrays that are not trained, and so not pruned.
        uses: how the function uses its arrays; without it, names decide alone.

    Raises:
        NothingToPrune: no array is left.
        UnknownName: a pattern that matches nothing.
        BadValue: an array without axes: it is a single number.

    >>> jax_prunable({"fc": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, "norm": {"scale": np.ones((1, 3))}})
    {'fc.kernel': (3, 2)}
    """
    arrays = _named_arrays(tree)
    floating = {name: array for name, array in arrays.items() if _is_float(array) and not _is_fixed(name, fixed)}
    if only:
        names = match_patterns(only, floating, "prunable")
    else:
        names = [
            name
            for name, array in floating.items()
            if array.ndim >= 2 and name not in uses.apart and (not _stays_dense(name) or _multiplies(name, array, uses))
        ]
    if skip:
        skipped = match_patterns(skip, arrays, "skip")
        names = [name for name in names if name not in skipped]
    if not names:
        raise NothingToPrune(
            f"the tree has no prunable array among its {len(arrays)}: none is floating-point, has two or more "
            "dimensions and is no bias, scale, normalization or embedding; name some with `prunable`"
        )
    shapes = {name: tuple(floating[name].shape) for name in names}
    check_not_single(shapes)
    return shapes


def _named_arrays(tree: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(tree)
    return {name: leaf for name, leaf in zip(leaf_names(tree), leaves, strict=True) if _is_array(leaf)}


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _is_float(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _is_fixed(name: str, fixed: Collection[str]) -> bool:
    return name in fixed or "batch_stats" in name.split(".")


def _multiplies(name: str, array: Any, uses: Uses) -> bool:
    """Say whether an array was seen as a factor, whatever its name; a table of embeddings stays an embedding."""
    return name in uses.factors and sum(size > 1 for size in array.shape) > 1 and not _TABLES & set(_own_words(name))


def _stays_dense(name: str) -> bool:
    """Judge by the array's own name and by that of the layer that owns it (numbers and `value` are no names)."""
    own, layer = _own_words(name), (_named_parts(name)[-2:-1] or [[]])[0]
    if own == ["kernel"]:  # of a product, whatever the layer is called
        return False
    if own == ["b"] or own[:1] == ["bias"] or not _NEVER.isdisjoint(own[-1:]):
        return True
    return any(_LAYER.search(word) for words in (layer, own) for word in (*words, "".join(words)))


def _named_parts(name: str) -> list[list[str]]:
    return [words for words in map(_words, re.split(r"[./]", name.removesuffix(".value"))) if words]


def _own_words(name: str) -> list[str]:
    return (_named_parts(name) or [[]])[-1]


def _words(part: str) -> list[str]:
    """Return the words of a name, without numbers.

    >>> _words("LayerNorm_0"), _words("pos_embedding"), _words("multiscale")
    (['layer', 'norm'], ['pos', 'embedding'], ['multiscale'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)]
