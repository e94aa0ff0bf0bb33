"""From a network, a mask and a population to the outputs of every member."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import es.population.convolutions
import es.population.layout
import es.population.pooling
import es.population.products  # noqa: F401
from es.coordinates import Space
from es.network import Apply, Arrays
from es.population.interpreter import Context, evaluate
from es.population.values import Value, Weight, canonical, is_shared, as_members

def weights(space: Space, where: NDArray[np.int32]) -> dict[str, Weight]:
    """Return the evolved parameters as tables of columns of a population."""
    flat = np.full(space.size, -1, np.int32)
    flat[where] = np.arange(len(where), dtype=np.int32)
    sizes = [int(np.prod(shape)) for shape in space.shapes]
    return {
        name: Weight(flat[offset : offset + length].reshape(shape), (dtype,))
        for name, shape, dtype, offset, length in zip(
            space.names, space.shapes, space.dtypes, space.offsets, sizes, strict=True
        )
    }

def chunk_outputs(apply: Apply, space: Space, where: NDArray[np.int32], population: jax.Array, fixed: Arrays, inputs: Any) -> Any:
    """Return the outputs of members that are evaluated together."""
    evolved = weights(space, where)
    shapes = {n: jax.ShapeDtypeStruct(s, d) for n, s, d in zip(space.names, space.shapes, space.dtypes, strict=True)}
    closed, tree = jax.make_jaxpr(lambda e, f, x: apply({**f, **e}, x), return_shape=True)(shapes, fixed, inputs)
    leaves, _ = jax.tree.flatten(({n: evolved[n] for n in space.names}, fixed, inputs), is_leaf=lambda v: isinstance(v, Weight))
    outputs = evaluate(Context(population), closed.jaxpr, closed.consts, leaves)
    count = population.shape[0]
    def lead(value: Value):
        if is_shared(value):
            return jnp.broadcast_to(jnp.asarray(value), (count, *jnp.shape(value)))
        m = as_members(value, population)
        return m.ordered(canonical(m.ndim))
    return jax.tree.unflatten(jax.tree.structure(tree), [lead(v) for v in outputs])

population_outputs = chunk_outputs
