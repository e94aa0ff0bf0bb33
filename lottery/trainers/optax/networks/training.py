"""JAX models as they are while they train: dropout draws, running statistics follow the data.

`es.jax_models` has every model as it is evaluated, which is how it is measured, and how evolution trains it. Here its
switches are the other way round, random keys are keys, and what the model writes comes back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from es.jax_models import kinds as jax_kinds
from es.jax_models.functions import rebuild
from es.jax_models.kinds import is_of
from es.jax_models.modules import JaxModel
from es.jax_models.switches import required, switches_of
from es.network import Apply, Arrays
from es.translation.fixed import released
from pruning.errors import BadValue
from pruning.pytrees import leaf_names

Forward = Callable[[Arrays, Any, jax.Array], tuple[Any, Mapping[str, Any]]]
"""`forward(arrays, inputs, key)` returns outputs in training mode, and the arrays that the model wrote, by name."""

# Of a tree, inputs and a key: outputs, and parts of the tree as they are afterwards.
_Call = Callable[[Any, Any, jax.Array], tuple[Any, Any]]


def as_evaluated(apply: Apply) -> Forward:
    """Return a network that trains as it is evaluated.

    >>> as_evaluated(lambda params, x: x * params["w"])({"w": 2.0}, 3.0, jax.random.key(0))
    (6.0, {})
    """
    return lambda arrays, inputs, key: (apply(arrays, inputs), {})


def forward_of(model: JaxModel, apply: Apply) -> Forward:
    """Return a JAX model in training mode.

    Args:
        model: as `es.jax_models.modules` has it.
        apply: the model in evaluation mode, of named arrays.

    Raises:
        BadValue: a model with statistics that are no part of its tree, and so could not be handed back.
    """
    call = _call_of(model)
    if call is None:
        return as_evaluated(apply)
    of_tree = _arrays(model.tree)

    def forward(arrays: Arrays, inputs: Any, key: jax.Array) -> tuple[Any, Mapping[str, Any]]:
        whole = {name: _whole(array, of_tree[name]) for name, array in arrays.items()}
        outputs, after = call(rebuild(model.tree, whole), released(inputs), key)
        return outputs, {name: value for name, value in _arrays(after).items() if name in model.fixed}

    return forward


def _call_of(model: JaxModel) -> _Call | None:
    """Return how a model is called while it trains; None where that is as it is evaluated."""
    match model.kind:
        case jax_kinds.LINEN | jax_kinds.LINEN_WITH_VARIABLES:
            return _linen(model.code[0], model.shown)
        case jax_kinds.NNX:
            return _nnx(model)
        case jax_kinds.EQUINOX | jax_kinds.EQUINOX_PARTITION:
            return _equinox(model.tree)
        case jax_kinds.EQUINOX_WITH_STATE:
            raise BadValue(
                "trainer 'optax' cannot hand back the state of an Equinox module (a BatchNorm?): use LayerNorm or "
                "GroupNorm, or give the pair (module, lambda module, batch: …) to train it as it is evaluated"
            )
        case jax_kinds.TRAIN_STATE:
            if len(model.code) > 1:
                raise BadValue(
                    "trainer 'optax' cannot hand back the statistics of a train state: give (variables, module)"
                )
            if (module := _bound_to(model.code[0])) is not None:
                return _linen(module, lambda tree: {"params": tree})
            called = _function(model.code[0])
            return None if called is None else lambda tree, inputs, key: called({"params": tree}, inputs, key)
        case jax_kinds.PAIR:
            module = _bound_to(model.code[0])
            if module is None:
                return _function(model.code[0])
            return _linen(module, lambda tree: tree if "params" in tree else {"params": tree})
        case jax_kinds.TRANSFORMED:
            return _function(model.code[0].apply)
    return None


def _linen(module: Any, variables_of: Callable[[Any], Mapping[str, Any]]) -> _Call:
    switches = switches_of(type(module).__call__)

    def call(tree: Any, inputs: Any, key: jax.Array) -> tuple[Any, Any]:
        variables = variables_of(tree)
        others = [name for name in variables if name != "params"]
        streams = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        return module.apply(variables, inputs, **_trained(switches, key), rngs=streams, mutable=others)

    return call


def _nnx(model: JaxModel) -> _Call:
    from flax import nnx

    def call(tree: Any, inputs: Any, key: jax.Array) -> tuple[Any, Any]:
        # Streams of the model's own keys, of this step of this training.
        seeded = jax.tree.map(lambda leaf: jax.random.fold_in(leaf, _number(key)) if _is_key(leaf) else leaf, tree)
        module = model.given(seeded)
        outputs = module(inputs, **_trained(switches_of(type(module).__call__), key))
        return outputs, nnx.to_pure_dict(nnx.split(module)[1])

    return call


def _equinox(module: Any) -> _Call | None:
    from equinox import nn

    as_it_is, evaluated = jax.tree.leaves(module), jax.tree.leaves(nn.inference_mode(module))
    if all(one is other for one, other in zip(as_it_is, evaluated, strict=True)):
        return None
    takes_key = "key" in inspect.signature(type(module).__call__).parameters
    switches = {name: value for name, value in switches_of(type(module).__call__).items() if value is not None}

    def call(tree: Any, inputs: Any, key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(jax.tree.leaves(inputs)[0]))

        def one(example: Any, own: jax.Array) -> Any:
            return tree(example, **_trained(switches, own), **({"key": own} if takes_key else {}))

        return jax.vmap(one, axis_name="batch")(inputs, keys), {}

    return call


def _function(apply: Callable[..., Any]) -> _Call | None:
    """Return a function whose switches and keys, as far as it needs them, are those of training."""
    needed = {name: value for name, value in switches_of(apply).items() if name in required(apply)}
    if not needed:
        return None
    order = required(apply)

    def call(tree: Any, inputs: Any, key: jax.Array) -> tuple[Any, Any]:
        filled, rest = _trained(needed, key), iter((tree, inputs))
        return apply(**{name: filled[name] if name in filled else next(rest) for name in order}), {}

    return call


def _trained(switches: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """Return switches of an evaluation as those of training, and a key where there is none."""
    return {name: key if value is None else not value for name, value in switches.items()}


def _bound_to(apply: Any) -> Any:
    """Return the Linen module whose `apply` this is; None for any other function."""
    module = getattr(apply, "__self__", None)
    return module if is_of(module, "flax.linen", "Module") and getattr(apply, "__name__", "") == "apply" else None


def _arrays(tree: Any) -> dict[str, Any]:
    leaves = zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)
    return {name: leaf for name, leaf in leaves if hasattr(leaf, "dtype") and not _is_key(leaf)}


def _whole(array: Any, like: Any) -> Any:
    """Return a complex array that is given as its halves."""
    halved = jnp.iscomplexobj(like) and not jnp.iscomplexobj(array)
    return jax.lax.complex(array[..., 0], array[..., 1]) if halved else array


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _number(key: jax.Array) -> jax.Array:
    return jax.random.bits(key)
