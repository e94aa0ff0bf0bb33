"""JAX models in one form: a tree of arrays, a function of it, and a way back to the model that was given.

Networks are evaluated as they are used: nothing is random and no statistics are written. A module is put into its
evaluation mode, an argument called `train` is False and one called `deterministic` is True, and a random key that a
function asks for is None: one that draws from it all the same fails, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from es.jax_models import kinds as jax_kinds
from es.jax_models.kinds import is_of, jax_kind
from es.jax_models.switches import Keywords, evaluating, required, switches_of
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, NothingToPrune
from pruning.pytrees import leaf_names


def _itself(tree: Any) -> Any:
    return tree


@dataclass(frozen=True)
class JaxModel:
    """A JAX model.

    Attributes:
        kind: the kind of model, in words (`es.jax_models.kinds`).
        tree: its arrays, and whatever else its tree holds. Names of leaves are those of masks.
        apply: `apply(tree, inputs)` returns the outputs for a batch, in evaluation mode. Pure.
        code: what identifies its function: functions, modules, classes, texts.
        given: `given(tree)` returns the caller's model with these arrays.
        shown: `shown(tree)` returns what a fitness function is given.
        fixed: names of arrays that training leaves alone: statistics, caches.
    """

    kind: str
    tree: Any
    apply: Callable[[Any, Any], Any]
    code: Sequence[Any]
    given: Callable[[Any], Any]
    shown: Callable[[Any], Any] = _itself
    fixed: frozenset[str] = frozenset()


def jax_model(thing: Any, seed: int = 0, example: Any = None) -> JaxModel:
    """Return a JAX model of any kind in its one form.

    Args:
        thing: the caller's model; see `es.jax_models.kinds`.
        seed: the seed of the first weights, for a model that makes them from a key.
        example: a batch of inputs, for a model that has no weights before it has seen one; or its shapes, where only
            the names and shapes of the weights matter.

    Raises:
        BadValue: no JAX model, one that needs an example where there is none, or one that is put together wrongly.
    """
    match jax_kind(thing):
        case jax_kinds.LINEN:
            return _linen(thing, _first(thing, seed, example, switches_of(type(thing).__call__)))
        case jax_kinds.LINEN_WITH_VARIABLES:
            variables, module = thing
            return _linen(module, variables, kind=jax_kinds.LINEN_WITH_VARIABLES, given=lambda found: (found, module))
        case jax_kinds.TRANSFORMED:
            return _transformed(thing, seed, example)
        case jax_kinds.TRAIN_STATE:
            return _train_state(thing)
        case jax_kinds.NNX:
            return _nnx(thing)
        case jax_kinds.EQUINOX:
            return _equinox(thing)
        case jax_kinds.EQUINOX_WITH_STATE:
            return _equinox_with_state(*thing)
        case jax_kinds.EQUINOX_PARTITION:
            return _equinox_partition(*thing)
        case jax_kinds.PAIR:
            return _pair(*thing)
        case jax_kinds.TREE:
            return JaxModel(jax_kinds.TREE, thing, _no_function, [], _itself)
    raise BadValue(f"expected a JAX model, not {type(thing).__name__}")


def _no_function(tree: Any, inputs: Any) -> Any:
    raise BadValue("a tree of parameters alone computes nothing from data: give the pair (params, apply)")


def _pair(tree: Any, apply: Callable[..., Any]) -> JaxModel:
    if callable(tree) and not jax.tree.leaves(jax.tree.map(lambda leaf: None if callable(leaf) else leaf, tree)):
        raise BadValue(
            "a JAX pair is (params, apply), and this one begins with a function; call it, and give the parameters"
        )
    module = getattr(apply, "__self__", None)
    of_linen = is_of(module, "flax.linen", "Module") and getattr(apply, "__name__", "") == "apply"
    if not of_linen:
        return JaxModel(jax_kinds.PAIR, tree, evaluating(apply), [apply], lambda found: (found, apply))
    bare = isinstance(tree, Mapping) and "params" not in tree  # what stands under `params` of the variables
    keywords = switches_of(type(module).__call__)

    def called(found: Any, inputs: Any) -> Any:
        return apply({"params": found} if bare else found, inputs, **keywords)

    fixed = frozenset() if bare else frozenset(n for n in leaf_names(tree) if not n.startswith("params."))
    return JaxModel(jax_kinds.PAIR, tree, called, [apply], lambda found: (found, apply), fixed=fixed)


def _linen(module: Any, variables: Any, kind: str = jax_kinds.LINEN, given: Callable[[Any], Any] = _itself) -> JaxModel:
    """Return a Linen module: parameters have their own paths for names, other collections are fixed."""
    if kind == jax_kinds.LINEN and "params" not in variables:
        raise NothingToPrune(f"{type(module).__name__} has no parameters: there is nothing to train or to prune")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise BadValue(f"{type(module).__name__}: expected the variables that module.init returns, with 'params'")
    others = [name for name in variables if name != "params"]
    both = sorted(set(others) & set(variables["params"]))
    if both:
        raise BadValue(f"{type(module).__name__}: {both[0]!r} is a submodule and a collection; rename the submodule")
    tree = {**variables["params"], **{name: variables[name] for name in others}}
    keywords = switches_of(type(module).__call__)

    def together(found: Any) -> dict[str, Any]:
        params = {name: value for name, value in found.items() if name not in others}
        return {"params": params, **{name: found[name] for name in others}}

    def called(found: Any, inputs: Any) -> Any:
        return module.apply(together(found), inputs, **keywords)

    fixed = frozenset(name for name in leaf_names(tree) if name.split(".")[0] in others)
    return JaxModel(kind, tree, called, [module], lambda found: given(together(found)), together, fixed)


def _transformed(pair: Any, seed: int, example: Any) -> JaxModel:
    """Return Haiku's `transform`: functions of parameters that lie in a dictionary."""
    if "state" in required(pair.apply):
        raise BadValue(
            "a network with state: give the pair (params, lambda params, x: apply(params, state, None, x)[0])"
        )
    params = _first(pair, seed, example, {})
    return JaxModel(jax_kinds.TRANSFORMED, params, evaluating(pair.apply), [pair], lambda found: found)


def _train_state(state: Any) -> JaxModel:
    """Return Flax's `TrainState`: parameters, perhaps statistics, and the function of the variables."""
    inner = _pair({"params": state.params}, state.apply_fn)
    statistics = getattr(state, "batch_stats", None)
    others = {} if statistics is None else {"batch_stats": statistics}

    def called(params: Any, inputs: Any) -> Any:
        return inner.apply({"params": params, **others}, inputs)

    return JaxModel(
        jax_kinds.TRAIN_STATE,
        state.params,
        called,
        [state.apply_fn, *jax.tree.leaves(others)],
        lambda found: state.replace(params=found),
    )


def _nnx(module: Any) -> JaxModel:
    """Return an nnx module: `nnx.Param`s are trained, statistics and random streams are fixed."""
    from flax import nnx

    graph, state = nnx.split(module)
    evaluated = nnx.clone(module)
    evaluated.eval()
    evaluation_graph, _ = nnx.split(evaluated)
    tree, structure = nnx.to_pure_dict(state), jax.tree.structure(state)
    trained = {".".join(map(str, path)) for path, held in nnx.to_flat_state(state) if isinstance(held, nnx.Param)}
    keywords = switches_of(type(module).__call__)
    classes = {type(node) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)}

    def merged(chosen: Any, found: Any) -> Any:
        return nnx.merge(chosen, jax.tree.unflatten(structure, jax.tree.leaves(found)))

    def called(found: Any, inputs: Any) -> Any:
        return merged(evaluation_graph, found)(inputs, **keywords)

    return JaxModel(
        jax_kinds.NNX,
        tree,
        called,
        [str(evaluation_graph), *sorted(classes, key=lambda kind: (kind.__module__, kind.__qualname__))],
        partial(merged, graph),
        partial(merged, evaluation_graph),
        frozenset(leaf_names(tree)) - trained,
    )


def _equinox(module: Any) -> JaxModel:
    """Return an Equinox module, which is called on one example at a time."""
    from equinox import nn

    indices = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, nn.StateIndex))
    if any(isinstance(node, nn.StateIndex) for node in indices) or "state" in required(type(module).__call__):
        raise BadValue(
            f"{type(module).__name__} keeps state (a BatchNorm?): give (module, state), as "
            "equinox.nn.make_with_state(Module)(…) returns them"
        )
    keywords = switches_of(type(module).__call__)

    def called(found: Any, inputs: Any) -> Any:
        one = nn.inference_mode(found)
        with users_code(_ONE_EXAMPLE, BadValue):
            return jax.vmap(lambda example: one(example, **keywords), axis_name="batch")(inputs)

    return JaxModel(jax_kinds.EQUINOX, module, called, [module], _itself, nn.inference_mode)


def _equinox_with_state(module: Any, state: Any) -> JaxModel:
    """Return an Equinox module that keeps state, which is read and not written."""
    from equinox import nn

    keywords = switches_of(type(module).__call__)

    def called(found: Any, inputs: Any) -> Any:
        one = nn.inference_mode(found)
        with users_code(_ONE_EXAMPLE, BadValue):
            calls = jax.vmap(lambda x, held: one(x, held, **keywords), (0, None), (0, None), axis_name="batch")
            return calls(inputs, state)[0]

    return JaxModel(
        jax_kinds.EQUINOX_WITH_STATE,
        module,
        called,
        [module, *jax.tree.leaves(state)],
        lambda found: (found, state),
        lambda found: (nn.inference_mode(found), state),
    )


def _equinox_partition(arrays: Any, rest: Any) -> JaxModel:
    """Return the two parts that `equinox.partition(module, equinox.is_array)` gives."""
    import equinox

    whole = _equinox(equinox.combine(arrays, rest))
    return JaxModel(
        jax_kinds.EQUINOX_PARTITION,
        whole.tree,
        whole.apply,
        whole.code,
        lambda found: equinox.partition(found, equinox.is_array),
        whole.shown,
    )


_ONE_EXAMPLE = (
    "the Equinox module on one example (where it takes whole batches, give the pair "
    "(module, lambda module, batch: module(batch)))"
)


def _first(thing: Any, seed: int, example: Any, keywords: Keywords) -> Any:
    """Return the variables of a model's `init` for a key and a batch; for shapes alone, zeros without memory."""
    if example is None:
        raise BadValue(
            f"{type(thing).__name__} has no weights before it has seen a batch: give the pair "
            "(module.init(key, batch), module)"
        )
    init, key = partial(thing.init, **keywords), jax.random.key(seed)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(example)):
        return init(key, example)
    made = jax.eval_shape(init, key, example)
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), made)
