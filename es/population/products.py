"""Rules for matrix products with an evolved weight: dense, without dead rows and columns, or fan-in by fan-in.

All formulations are exact. They differ where an input is not finite: a removed weight times Inf is NaN in a dense
product and nothing where the weight is left out. `fan_in` leaves out every removed weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from numpy.typing import NDArray

from es.population.cost import machine
from es.population.interpreter import Context, rule
from es.population.tables import FanIn, Panels, fan_in, panels
from es.population.values import MEMBER, Members, Value, Weight, as_members, is_shared, members_of, shape_of, size


@rule("dot_general")
def dot_general(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value:
    """A product; with a weight and without batch axes, in the cheapest formulation."""
    (lhs, rhs), params = operands, equation.params
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    if not left_batch and not left and isinstance(lhs, Weight) == isinstance(rhs, Weight):
        return plain(context, lhs, rhs, (left, right), (left_batch, right_batch), params)
    if isinstance(lhs, Weight) and not isinstance(rhs, Weight) and not left_batch:
        return weighted(context, lhs, left, rhs, right, params, weight_first=True)
    if isinstance(rhs, Weight) and not isinstance(lhs, Weight) and not left_batch:
        return weighted(context, rhs, right, lhs, left, params, weight_first=False)
    return plain(context, lhs, rhs, (left, right), (left_batch, right_batch), params)


def plain(
    context: Context,
    lhs: Value,
    rhs: Value,
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]],
    params: dict[str, Any],
    swap: bool = False,
) -> Members:
    """Return the dense product of two values, each read in the order in which it is stored.

    Args:
        context: the context of the evaluation.
        lhs: one operand.
        rhs: the other.
        contract: axes of both that are summed over.
        batch: axes of both that are kept together.
        params: the parameters of the equation.
        swap: store the axes of `rhs` before those of `lhs`; the result is the same.
    """
    sides: list[Value] = [v if is_shared(v) else as_members(v, context.population) for v in (lhs, rhs)]
    orders = [s.order if isinstance(s, Members) else tuple(range(len(shape_of(s)))) for s in sides]
    datas = [s.data if isinstance(s, Members) else jnp.asarray(s) for s in sides]
    both = all(isinstance(s, Members) for s in sides)
    result_axes: list[dict[int, int]] = []
    count = len(batch[0])
    for order, summed, kept in zip(orders, contract, batch, strict=True):
        axes = {axis: i for i, axis in enumerate(kept)} | {MEMBER: MEMBER}
        for axis in sorted(set(order) - {MEMBER} - set(summed) - set(kept)):
            axes[axis] = count
            count += 1
        result_axes.append(axes)
    if swap:
        orders, datas, result_axes = orders[::-1], datas[::-1], result_axes[::-1]
        contract, batch = (contract[1], contract[0]), (batch[1], batch[0])
    summed = [[order.index(axis) for axis in axes] for order, axes in zip(orders, contract, strict=True)]
    kept = [([MEMBER] if both else []) + list(axes) for axes in batch]
    kept_at = [[order.index(axis) for axis in axes] for order, axes in zip(orders, kept, strict=True)]
    data = lax.dot_general(
        datas[0],
        datas[1],
        ((summed[0], summed[1]), (kept_at[0], kept_at[1])),
        precision=params.get("precision"),
        preferred_element_type=params.get("preferred_element_type"),
    )
    free = [
        axes[axis]
        for order, axes, gone, same in zip(orders, result_axes, contract, kept, strict=True)
        for axis in order
        if axis not in gone and axis not in same
    ]
    return Members(data, (*(result_axes[0][axis] for axis in kept[0]), *free))


def weighted(
    context: Context,
    weight: Weight,
    weight_axes: Sequence[int],
    other: Value,
    other_axes: Sequence[int],
    params: dict[str, Any],
    weight_first: bool,
) -> Members:
    """Return the product of a weight and an activation, [P, …weight's free axes, …activation's free axes]."""
    weight_free = [axis for axis in range(weight.ndim) if axis not in weight_axes]
    other_shape = shape_of(other)
    other_free = [axis for axis in range(len(other_shape)) if axis not in other_axes]
    rows, inner = (size([weight.shape[axis] for axis in axes]) for axes in (weight_free, weight_axes))
    matrix = weight.slots.transpose([*weight_free, *weight_axes]).reshape(rows, inner)
    columns = size([other_shape[axis] for axis in other_free])
    chosen = choose(matrix, context.members, columns, shared=is_shared(other))
    if chosen is None:
        contract, lhs, rhs = (weight_axes, other_axes), weight, other
        if not weight_first:
            contract, lhs, rhs = (other_axes, weight_axes), other, weight
        return plain(context, lhs, rhs, contract, ((), ()), params, swap=not weight_first)
    if isinstance(other, Members):
        stored = [axis for axis in other.order if axis in other_free]
        activation = other.ordered([MEMBER, *other_axes, *stored]).reshape(context.members, inner, columns)
    else:
        stored = other_free
        activation = jnp.transpose(jnp.asarray(other), [*other_axes, *stored]).reshape(inner, columns)
    result = matmul(context, matrix, weight.casts, activation, chosen, params)
    shift = (len(other_free), 0) if not weight_first else (0, len(weight_free))
    order = [shift[0] + i for i in range(len(weight_free))]
    tail = [shift[1] + other_free.index(axis) for axis in stored]
    axes = [MEMBER, *order] if result.order[0] == MEMBER else [*order, MEMBER]
    sizes = [weight.shape[axis] for axis in weight_free]
    front = [context.members, *sizes] if axes[0] == MEMBER else [*sizes, context.members]
    return Members(result.data.reshape(*front, *(other_shape[axis] for axis in stored)), (*axes, *tail))


Compact = tuple[NDArray[np.intp], NDArray[np.intp]]
Formulation = FanIn | Panels | Compact


def choose(matrix: NDArray[np.int32], members: int, columns: int, shared: bool) -> Formulation | None:
    """Return the cheapest formulation of [O, I] × [I, columns] for all members; None for the dense one."""
    (rows, inner), cost = matrix.shape, machine()
    removed = matrix < 0
    if not removed.any() or not matrix.size:
        return None
    together = (1, members * rows) if shared else (members, rows)

    def form(entries: int) -> float:
        return cost.gathered(members * entries)

    live_rows, live_columns = np.flatnonzero(~removed.all(1)), np.flatnonzero(~removed.all(0))
    options: list[tuple[float, Formulation | None]] = []
    if not shared or len(live_columns) == inner:
        # an input that no weight reads is left out even where that saves nothing: it may not be finite
        options.append((cost.product(*together, inner, columns) + form(matrix.size), None))
    if len(live_rows) < rows or len(live_columns) < inner:
        height, width, copies = len(live_rows), len(live_columns), 1 if shared else members
        price = cost.product(together[0], members * height if shared else height, width, columns) + form(height * width)
        price += cost.copied(copies * width * columns) * (width < inner)
        price += cost.copied(members * rows * columns) * (height < rows)
        options.append((price, (live_rows, live_columns)))
    if shared:
        tables = fan_in(matrix)
        price = sum(cost.product(len(b.slots), members, b.slots.shape[1], columns) for b in tables.buckets)
        price += cost.copied(tables.places * columns) + form(tables.places)
        price += cost.copied(members * rows * columns) * (tables.back is not None)
        options.append((price, tables))
    else:
        for height in (8, 16, 32):
            if height < rows:
                cut = panels(matrix, height)
                count, _, width = cut.slots.shape
                price = cost.product(members * count, height, width, columns) + form(cut.slots.size)
                price += cost.copied(members * count * width * columns)
                price += cost.copied(members * rows * columns) * (rows % height > 0)
                options.append((price, cut))
    return min(options, key=lambda option: option[0])[1]


def matmul(
    context: Context,
    matrix: NDArray[np.int32],
    casts: tuple[str, ...],
    activation: jax.Array,
    chosen: Formulation | None,
    params: dict[str, Any],
) -> Members:
    """Return a weight matrix times an activation, axes 0 = rows and 1 = columns.

    Args:
        context: the context of the evaluation.
        matrix: [O, I] slots of the weight.
        casts: the casts of the weight.
        activation: [I, R], shared, or [P, I, R].
        chosen: a formulation of `choose`.
        params: the parameters of the equation: precision and type of the result.
    """
    shared = activation.ndim == 2

    def dense(slots: NDArray[np.int32]) -> Members:
        return members_of(Weight(slots, casts), context.population)

    def full_product(weights: Members, against: jax.Array) -> jax.Array:
        full = weights.ordered((MEMBER, *range(weights.ndim)))
        if shared:
            return product("poi,ir->por", full, against, params)
        return product("poi,pir->por", full, against, params)

    if chosen is None:
        return Members(full_product(dense(matrix), activation), (MEMBER, 0, 1))
    if isinstance(chosen, FanIn):
        padded = jnp.concatenate([activation, jnp.zeros((1, activation.shape[1]), activation.dtype)])
        parts = [
            product("pok,okr->opr", dense(bucket.slots).data, _rows(padded, bucket.columns, 0), params)
            for bucket in chosen.buckets
        ]
        result = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        return Members(result if chosen.back is None else _rows(result, chosen.back, 0), (0, MEMBER, 1))
    if isinstance(chosen, Panels):
        inputs = _rows(activation, chosen.columns, 1)
        result = product("pnou,pnur->pnor", dense(chosen.slots).data, inputs, params)
        result = result.reshape(context.members, -1, activation.shape[-1])[:, : len(matrix)]
        return Members(result, (MEMBER, 0, 1))
    live_rows, live_columns = chosen
    weights = dense(matrix[np.ix_(live_rows, live_columns)])
    inputs = (
        activation if len(live_columns) == matrix.shape[1] else _rows(activation, live_columns, activation.ndim - 2)
    )
    result = full_product(weights, inputs)
    if len(live_rows) < len(matrix):
        back = np.full(len(matrix), len(live_rows))
        back[live_rows] = np.arange(len(live_rows))
        empty = jnp.zeros((result.shape[0], 1, result.shape[2]), result.dtype)
        result = _rows(jnp.concatenate([result, empty], axis=1), back, 1)
    return Members(result, (MEMBER, 0, 1))


def product(subscripts: str, lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Return an `einsum` with the precision and the type of the result of an equation."""
    precision, dtype = params.get("precision"), params.get("preferred_element_type")
    return jnp.einsum(subscripts, lhs, rhs, precision=precision, preferred_element_type=dtype)


def _rows(array: jax.Array, index: NDArray[Any], axis: int) -> jax.Array:
    return jnp.take(array, index, axis=axis, mode="clip")
