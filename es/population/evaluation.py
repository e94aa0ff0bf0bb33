"""From a network, a mask and a population to the outputs of every member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core
from numpy.typing import NDArray

import es.population.convolutions
import es.population.layout
import es.population.pooling
import es.population.products  # noqa: F401
from es.coordinates import Space
from es.network import Apply, Arrays
from es.population.chunks import at_once, divisor, held, over_members
from es.population.cost import machine
from es.population.examples import example_axes, same_program
from es.population.interpreter import Context, evaluate
from es.population.values import MEMBER, Value, Weight, aligned, is_shared, shape_of, size

FEW_EXAMPLES = 64
"""Enough for the innermost loops to run at full rate."""


def population_outputs(
    apply: Apply,
    space: Space,
    where: NDArray[np.int32] | jax.Array,
    population: jax.Array,
    fixed: Arrays,
    inputs: Any,
    members_at_once: int | None = None,
    examples_at_once: int | None = None,
) -> Any:
    """Return every member's outputs for a batch that all members share.

    The same numbers as `jax.vmap(lambda v: apply({**fixed, **unpack(space, where, v)}, inputs))(population)` up to
    rounding. Call it inside `jit`: it traces `apply` and reads `where` at trace time. Members never touch each other.

    Args:
        apply: the network.
        space: the space of its evolved parameters.
        where: [D] int32, ascending: the survivors. With a tracer the structure of the mask stays unused.
        population: [P, D].
        fixed: every array that is not evolved.
        inputs: what `apply` takes; any pytree of arrays.
        members_at_once: how many members are evaluated together; None chooses from the memory that they need. Inside
            `jax.shard_map` over members, P and this number are those of one device. (It needs `check_vma=False`.)
        examples_at_once: how many examples are evaluated together, for a network that treats each on its own and whose
            inputs all have examples as their first axis; other networks always see the whole batch. None chooses.

    Returns:
        The outputs with a leading axis [P, …].

    >>> space = Space.of({"w": np.zeros((2, 3), "float32")}, ("w",))
    >>> population = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> inputs = jnp.ones((5, 3))
    >>> population_outputs(lambda p, x: x @ p["w"].T, space, np.array([0, 4]), population, {}, inputs)[:, 0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    if isinstance(where, Tracer):
        population = jnp.zeros((len(population), space.size), population.dtype).at[:, where].set(population)
        where = np.arange(space.size, dtype=np.int32)
    network = _MaskedNetwork(apply, space, np.asarray(where), fixed)
    members, tile = population.shape[0], _tileable(network, inputs)
    guess = min(members, members_at_once or 8)
    program = network.trace(guess, inputs)
    leaves = jax.tree.leaves(inputs)
    need = held(program.closed.jaxpr, 0, range(1 + len(jax.tree.leaves(fixed)), len(program.closed.jaxpr.invars)))
    activations, weights = need.activations / guess, need.weights / guess
    room = machine().working
    few = len(leaves[0]) if tile else 1
    if examples_at_once:
        few = divisor(few, examples_at_once) or few
    elif tile and machine().tiles and members * (activations + weights) > room:
        few = _few_examples(few, activations / few, weights)
    share = few / len(leaves[0]) if tile else 1
    together = members_at_once or at_once(members, room / max(activations * share + weights, 1))
    together = min(together, members)
    if not tile or few == len(leaves[0]):
        if together != guess:
            program = network.trace(together, inputs)
        return program.unflatten(over_members(program.closed, population, program.arguments(fixed, inputs), together))
    blocks = jax.tree.map(lambda a: a.reshape(-1, few, *a.shape[1:]), inputs)
    program = network.trace(together, jax.tree.map(lambda a: a[0], blocks))

    def block(some: Any) -> list[jax.Array]:
        return over_members(program.closed, population, program.arguments(fixed, some), together)

    outputs = lax.map(block, blocks)
    return program.unflatten([_joined(out, axis + 1) for out, axis in zip(outputs, tile, strict=True)])


def _joined(blocks: jax.Array, axis: int) -> jax.Array:
    """Return [blocks, P, …] with its blocks side by side along an axis of [P, …]."""
    moved = jnp.moveaxis(blocks, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def _few_examples(total: int, activation: float, weights: float) -> int:
    """Return how many examples to evaluate at once: few, but enough to be worth making the weights ready."""
    least = max(FEW_EXAMPLES, 2 * weights / max(activation, 1))
    return next((d for d in range(int(least), total) if total % d == 0), total)


@dataclass(frozen=True)
class _Program:
    """A traced evaluation of some members: of population [n, D], then every leaf of `fixed` and of the inputs."""

    closed: core.ClosedJaxpr
    structure: Any

    def arguments(self, fixed: Arrays, inputs: Any) -> list[Any]:
        return jax.tree.leaves((dict(fixed), inputs))

    def unflatten(self, outputs: Sequence[jax.Array]) -> Any:
        return jax.tree.unflatten(self.structure, outputs)


@dataclass(frozen=True)
class _MaskedNetwork:
    """A network of which only the survivors (positions `where` of the space) differ between members."""

    apply: Apply
    space: Space
    where: NDArray[np.int32]
    fixed: Arrays

    def single(self, inputs: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the jaxpr of one member, of (evolved in the space's order, fixed, inputs), and its outputs' shapes."""
        shapes = [jax.ShapeDtypeStruct(s, d) for s, d in zip(self.space.shapes, self.space.dtypes, strict=True)]

        def run(evolved: list[jax.Array], fixed: Arrays, some: Any) -> Any:
            return self.apply({**fixed, **dict(zip(self.space.names, evolved, strict=True))}, some)

        return jax.make_jaxpr(run, return_shape=True)(shapes, dict(self.fixed), inputs)

    def trace(self, members: int, inputs: Any) -> _Program:
        """Return the evaluation of a population with `members` members."""
        closed, outputs = self.single(inputs)

        def run(population: jax.Array, shared: list[Any]) -> list[jax.Array]:
            context = Context(population)
            results = evaluate(context, closed.jaxpr, closed.consts, [*self.weights(), *shared])
            return [_in_front(context, result) for result in results]

        population = jax.ShapeDtypeStruct((members, len(self.where)), jnp.float32)
        shared = jax.tree.leaves((dict(self.fixed), inputs))
        return _Program(jax.make_jaxpr(run)(population, shared), jax.tree.structure(outputs))

    def weights(self) -> list[Weight]:
        """Return the evolved parameters as tables of columns of a population."""
        columns = np.full(self.space.size, -1, np.int32)
        columns[self.where] = np.arange(len(self.where), dtype=np.int32)
        each = zip(self.space.shapes, self.space.dtypes, self.space.offsets, strict=True)
        return [Weight(columns[at : at + size(shape)].reshape(shape), (dtype,)) for shape, dtype, at in each]


def _in_front(context: Context, value: Value) -> jax.Array:
    ndim = len(shape_of(value))
    array = aligned(value, (MEMBER, *range(ndim)), context.population)
    return jnp.broadcast_to(array, (context.members, *array.shape[1:])) if ndim or is_shared(value) else array


def _tileable(network: _MaskedNetwork, inputs: Any) -> list[int] | None:
    """Return where every output has its examples, if the network treats every example on its own."""
    leaves = jax.tree.leaves(inputs)
    count = len(leaves[0]) if leaves and jnp.ndim(leaves[0]) else 0
    if count < 2 or any(not jnp.ndim(leaf) or len(leaf) != count for leaf in leaves):
        return None
    closed, _ = network.single(inputs)
    start = [None] * (len(closed.jaxpr.invars) - len(leaves)) + [0] * len(leaves)
    axes = example_axes(closed.jaxpr, start)
    if axes is None or None in axes:
        return None
    smaller, _ = network.single(jax.tree.map(lambda leaf: leaf[: max(1, count // 2)], inputs))
    return [axis for axis in axes if axis is not None] if same_program(closed, smaller) else None
