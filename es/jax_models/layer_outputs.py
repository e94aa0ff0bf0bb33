"""What the layers of a plain JAX function give out: the results of the products with its arrays, read off its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from es.network import Apply, Arrays
from es.population.interpreter import bind, called

_MULTIPLY = frozenset({"dot_general", "conv_general_dilated"})
# An array stays itself through these.
_KEEP = frozenset({"transpose", "convert_element_type", "copy", "squeeze", "expand_dims", "broadcast_in_dim", "mul"})

WithTaps = Callable[[Arrays, Any, Mapping[str, Any]], tuple[Any, dict[str, jax.Array]]]


def with_layer_outputs(apply: Apply, params: Arrays, inputs: Any, names: Collection[str]) -> WithTaps:
    """Return a function that also gives the first product of every array with activations.

    Args:
        apply: the network.
        params: its arrays, by name; their shapes count.
        inputs: a batch; its shapes count.
        names: the arrays whose products are wanted.

    Returns:
        `run(params, inputs, taps)`: the outputs and the products by name, in the order of the pass. What `taps` holds
        for a name is added to its product: its gradient is that of the product. Products inside loops are not seen.

    >>> run = with_layer_outputs(lambda p, x: jnp.tanh(x @ p["a"]), {"a": jnp.ones((2, 3))}, jnp.ones((1, 2)), ["a"])
    >>> {name: value.tolist() for name, value in run({"a": jnp.ones((2, 3))}, jnp.ones((1, 2)), {})[1].items()}
    {'a': [[2.0, 2.0, 2.0]]}
    """
    program, shape = jax.make_jaxpr(apply, return_shape=True)(dict(params), inputs)
    structure, leaves = jax.tree.structure(shape), sorted(params)

    def run(arrays: Arrays, batch: Any, taps: Mapping[str, Any]) -> tuple[Any, dict[str, jax.Array]]:
        seen: dict[str, jax.Array] = {}
        named = [(arrays[name], name if name in names else "") for name in leaves]
        given = [*named, *((leaf, "") for leaf in jax.tree.leaves(batch))]
        constants = [(value, "") for value in program.consts]
        made = _run(program.jaxpr, constants, given, taps, seen)
        return jax.tree.unflatten(structure, [value for value, _ in made]), seen

    return run


Named = tuple[Any, str]


def _run(
    program: Any,
    constants: Sequence[Named],
    given: Sequence[Named],
    taps: Mapping[str, Any],
    seen: dict[str, jax.Array],
) -> list[Named]:
    known: dict[Any, Named] = dict(zip((*program.constvars, *program.invars), (*constants, *given), strict=True))

    def look(atom: Any) -> Named:
        return (atom.val, "") if isinstance(atom, Literal) else known[atom]

    for step in program.eqns:
        taken = [look(atom) for atom in step.invars]
        known.update(zip(step.outvars, _step(step, taken, taps, seen), strict=True))
    return [look(atom) for atom in program.outvars]


def _step(step: Any, taken: Sequence[Named], taps: Mapping[str, Any], seen: dict[str, jax.Array]) -> list[Named]:
    inner = called(step)
    if inner is not None:
        return _run(inner.jaxpr, [(value, "") for value in inner.consts], taken, taps, seen)
    names = {name for _, name in taken if name}
    results = bind(step, [value for value, _ in taken])
    if step.primitive.name in _MULTIPLY:
        sides = [name for _, name in taken[:2]]
        name = next((one for one, other in (sides, sides[::-1]) if one and not other), "")
        if name and name not in seen:
            seen[name] = results[0]
            results = [results[0] + taps[name]] if name in taps else results
        return [(value, "") for value in results]
    kept = names.pop() if len(names) == 1 and step.primitive.name in _KEEP else ""
    return [(value, kept) for value in results]


def zero_taps(run: WithTaps, params: Arrays, inputs: Any) -> dict[str, jax.Array]:
    """Return taps of 0 for every product."""
    shapes = jax.eval_shape(lambda arrays, batch: run(arrays, batch, {})[1], dict(params), inputs)
    return {name: jnp.zeros(each.shape, each.dtype) for name, each in shapes.items()}
