"""The compiled part of a training: steps of stacked networks, one after the other, without Python between them.

    batch ─▶ gradients ─▶ mask ─▶ clip ─▶ optimizer ─▶ mask

A mask is an argument of the program, so that every level runs the same one; so are the places of the examples and the
learning rates, and how many steps are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from es.network import Apply
from lottery.trainers.optax.networks.training import Forward
from lottery.trainers.optax.optimizers.optimizer import Optimizer
from pruning.pytrees import apply_mask

Tree = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """One network between two steps; a pytree of device arrays.

    Attributes:
        params: what is trained, by name; a complex parameter as its halves along a last axis.
        fixed: every other parameter and buffer, by name.
        optimizer: the optimizer's state.
        key: of everything random in this training, as plain numbers; never changes.
        step: how many steps are done, those before the rewind point included.
        loss_sum: losses of the steps since the last evaluation, summed.
    """

    params: Tree
    fixed: Tree
    optimizer: Any
    key: jax.Array
    step: jax.Array
    loss_sum: jax.Array


@dataclass(frozen=True)
class Chunk:
    """What some steps look at; rows beyond their number are not read.

    Attributes:
        places: of the examples of every step, [networks, steps, batch] int32.
        rates: the learning rate of every step, [steps].
        count: how many steps are taken.
        factors: by what the learning rates of single tensors are multiplied, by name, each [networks].
    """

    places: jax.Array
    rates: jax.Array
    count: int
    factors: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """What happens in every step.

    Attributes:
        forward: the network in training mode.
        loss: `loss(outputs, targets)` returns a scalar.
        optimizer: makes of gradients what is added to the weights.
        clip_norm: the largest norm of all gradients, or None.
    """

    forward: Forward
    loss: Callable[[Any, Any], Any]
    optimizer: Optimizer
    clip_norm: float | None


_Arrays = tuple[jax.Array, jax.Array, Tree]
"""Places, rates and factors of a chunk."""

Advance = Callable[[Tree, State, Any, Chunk], State]
"""`advance(keeps, states, data, chunk)`; masks and states have one row for each network."""


def advance_in_loop(rules: Rules) -> Advance:
    """Return steps as one compiled program: a loop on the device."""

    def run(keeps: Tree, states: State, data: Any, chunk: _Arrays, count: jax.Array) -> State:
        def body(index: jax.Array, now: State) -> State:
            return _steps(rules, keeps, now, data, chunk, index)

        return jax.lax.fori_loop(0, count, body, states)

    compiled = jax.jit(run, donate_argnums=1)
    return lambda keeps, states, data, chunk: compiled(
        keeps, states, data, (chunk.places, chunk.rates, chunk.factors), jnp.asarray(chunk.count, jnp.int32)
    )


def advance_one_by_one(rules: Rules) -> Advance:
    """Return steps as one compiled step that Python calls again and again."""

    def run(keeps: Tree, states: State, data: Any, chunk: _Arrays, index: jax.Array) -> State:
        return _steps(rules, keeps, states, data, chunk, index)

    compiled = jax.jit(run, donate_argnums=1)

    def advance(keeps: Tree, states: State, data: Any, chunk: Chunk) -> State:
        for index in range(chunk.count):
            states = compiled(keeps, states, data, (chunk.places, chunk.rates, chunk.factors), np.int32(index))
        return states

    return advance


def convolves(apply: Apply, params: Tree, inputs: Any) -> bool:
    """Say whether a network has convolutions.

    >>> convolves(lambda params, x: x @ params["w"], {"w": jnp.ones((2, 1))}, jnp.ones((1, 2)))
    False
    """
    return "conv_general_dilated" in str(jax.make_jaxpr(apply)(dict(params), inputs))


def clipped(gradients: Tree, largest: float) -> Tree:
    """Return gradients scaled so that their joint norm is no larger, as PyTorch's `clip_grad_norm_` scales them.

    >>> clipped({"w": jnp.array([3.0, 4.0])}, 1.0)["w"].round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    scale = jnp.minimum(largest / (norm + 1e-6), 1.0)
    return jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), gradients)


def evaluated(states: State) -> State:
    """Return the states with the sums since the last evaluation set back."""
    return replace(states, loss_sum=jnp.zeros_like(states.loss_sum))


Begin = Callable[[Tree, jax.Array], Any]
"""`begin(params, rate)`: the optimizers' states, one row for each network."""

Arrays = Callable[[State, Any], dict[str, jax.Array]]
"""`arrays(states, row)`: one network's parameters and buffers as they are measured and delivered."""


def begin_with(rules: Rules) -> Begin:
    """Return the compiled beginning of an optimizer."""
    return jax.jit(jax.vmap(lambda params, rate: rules.optimizer.begin(dict(params), rate), (0, None)))


def arrays_with(rules: Rules) -> Arrays:
    """Return the compiled choice of one network."""

    def run(states: State, row: jax.Array) -> dict[str, jax.Array]:
        state: State = jax.tree.map(lambda leaf: leaf[row], states)
        return {**state.fixed, **rules.optimizer.evaluated(state.optimizer, dict(state.params))}

    return jax.jit(run)


def _steps(rules: Rules, keeps: Tree, states: State, data: Any, chunk: _Arrays, index: jax.Array) -> State:
    """Return every network one step later; the examples of each are at `places`, [networks, batch]."""
    places, rate, factors = chunk[0][:, index], chunk[1][index], chunk[2]

    def step(keep: Tree, state: State, own: jax.Array, factors: Tree) -> State:
        return _step(rules, keep, state, _rows(data, own), rate, factors)

    if len(places) > 1:
        return jax.vmap(step)(keeps, states, places, factors)
    # without the axis: a product of one network is a plain one
    one = jax.tree.map(lambda leaf: leaf[0], (keeps, states, places, factors))
    return jax.tree.map(lambda leaf: leaf[None], step(*one))


def _step(rules: Rules, keeps: Tree, state: State, batch: tuple[Any, Any], rate: jax.Array, factors: Tree) -> State:
    inputs, targets = batch
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss(params: Tree) -> tuple[jax.Array, Tree]:
        outputs, written = rules.forward({**state.fixed, **params}, inputs, key)
        return jnp.asarray(rules.loss(outputs, targets)).reshape(()), written

    (value, written), gradients = jax.value_and_grad(loss, has_aux=True)(dict(state.params))
    gradients = apply_mask(gradients, keeps)
    if rules.clip_norm is not None:
        gradients = clipped(gradients, rules.clip_norm)

    def on_batch(params: Tree) -> jax.Array:
        return loss(apply_mask(params, keeps))[0]

    before, optimizer = dict(state.params), rules.optimizer
    updates, after = optimizer.updates(state.optimizer, gradients, before, rate, state.step, on_batch, value)
    if factors:
        updates = {name: (change * factors.get(name, 1.0)).astype(change.dtype) for name, change in updates.items()}
    # What an optimizer writes to a removed weight all the same (noise, a mix of a matrix's gradients) is 0 again.
    params = apply_mask(optax.apply_updates(before, updates), keeps)
    return State(
        params=params,
        fixed={**state.fixed, **{name: value.astype(state.fixed[name].dtype) for name, value in written.items()}},
        optimizer=after,
        key=state.key,
        step=state.step + 1,
        loss_sum=state.loss_sum + value.astype(state.loss_sum.dtype),
    )


def _rows(data: Any, places: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf.at[places].get(mode="promise_in_bounds"), data)
