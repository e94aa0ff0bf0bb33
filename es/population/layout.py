"""Rules for operations that compute each entry from its own place: none moves data only to change a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core

from es.population.interpreter import Context, rule
from es.population.values import MEMBER, Members, Value, Weight, aligned, as_members, is_shared, size

# fmt: off
ELEMENTWISE = (
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log",
    "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "xor",
)
# fmt: on
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")


@rule(*ELEMENTWISE)
def elementwise(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """Every operand is brought to the order of the largest one."""
    if len(operands) == 1 and isinstance(operands[0], Weight):
        renamed = _renamed(equation, operands[0])
        if renamed is not None:
            return renamed
    ready = [operand if is_shared(operand) else as_members(operand, context.population) for operand in operands]
    largest = max(
        (value for value in ready if isinstance(value, Members)), key=lambda value: (value.ndim, value.data.size)
    )
    ndim = max(np.ndim(value) if is_shared(value) else value.ndim for value in ready)
    order = largest.order if largest.ndim == ndim else (MEMBER, *range(ndim))
    arrays = [aligned(value, order, context.population) for value in ready]
    return Members(_broadcasting(equation, arrays), order)


def _renamed(equation: core.JaxprEqn, weight: Weight) -> Weight | None:
    if equation.primitive.name in ("copy", "copy_p", "stop_gradient"):
        return weight
    if equation.primitive.name == "convert_element_type":
        return Weight(weight.slots, (*weight.casts, str(equation.params["new_dtype"])))
    return None


def _broadcasting(equation: core.JaxprEqn, arrays: list[jax.Array]) -> jax.Array:
    """Bind after broadcasting axes of size 1; scalars too, which some primitives do not take beside arrays."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    return equation.primitive.bind(
        *(lax.broadcast_in_dim(a, shape, _last(a, shape)) for a in arrays), **equation.params
    )


def _last(array: jax.Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(shape) - array.ndim, len(shape)))


@rule("transpose")
def transpose(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value:
    """Rename the axes."""
    (operand,), permutation = operands, equation.params["permutation"]
    if isinstance(operand, Weight):
        return Weight(operand.slots.transpose(permutation), operand.casts)
    assert isinstance(operand, Members)
    return Members(operand.data, tuple(a if a == MEMBER else permutation.index(a) for a in operand.order))


@rule("broadcast_in_dim")
def broadcast_in_dim(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """New axes come right after the population; the others keep their order."""
    operand, shape, places = operands[0], equation.params["shape"], equation.params["broadcast_dimensions"]
    if len(operands) > 1:
        return None
    if isinstance(operand, Weight) and size(shape) == operand.slots.size:
        inserted = [1 if axis not in places else length for axis, length in enumerate(shape)]
        return Weight(operand.slots.reshape(inserted), operand.casts)
    members = as_members(operand, context.population)
    kept = [MEMBER if axis == MEMBER else places[axis] for axis in members.order]
    new = [axis for axis in range(len(shape)) if axis not in places]
    at = kept.index(MEMBER) + 1
    order = (*kept[:at], *new, *kept[at:])
    sizes = [context.members if axis == MEMBER else shape[axis] for axis in order]
    return Members(lax.broadcast_in_dim(members.data, sizes, [order.index(axis) for axis in kept]), order)


@rule("reshape", "squeeze", "expand_dims")
def reshape(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """Axes that are merged or split together are brought side by side; the rest stay where they lie."""
    if equation.params.get("dimensions") is not None and equation.primitive.name == "reshape":
        return None
    operand, shape = operands[0], equation.outvars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(operand, Weight):
        return Weight(operand.slots.reshape(shape), operand.casts)
    assert isinstance(operand, Members)
    if not size(shape):
        return None
    groups = grouped(operand.shape, shape)
    if groups is None:
        return None
    whole = [axis for axis in operand.order if axis == MEMBER or operand.shape[axis] != 1]
    old_order: list[int] = []
    new_order: list[int] = []
    for axis in whole:
        before, after = ([MEMBER], [MEMBER]) if axis == MEMBER else next(g for g in groups if axis in g[0])
        if before[0] == axis:
            old_order += before
            new_order += after
    ones = [axis for axis in range(len(shape)) if axis not in new_order]
    old_ones = [axis for axis in range(operand.ndim) if axis not in old_order]
    data = operand.ordered((*old_order, *old_ones))
    order = (*new_order, *ones)
    return Members(data.reshape([context.members if axis == MEMBER else shape[axis] for axis in order]), order)


def grouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Return the smallest groups of axes that a reshape turns into each other; axes of size 1 are in none.

    >>> grouped((2, 3, 1, 4), (6, 2, 2))
    [([0, 1], [0]), ([3], [1, 2])]
    """
    before = [axis for axis, length in enumerate(old) if length != 1]
    after = [axis for axis, length in enumerate(new) if length != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while before or after:
        if not before or not after:
            return None
        left, right = [before.pop(0)], [after.pop(0)]
        while (have := size([old[a] for a in left])) != (want := size([new[a] for a in right])):
            source, target = (before, left) if have < want else (after, right)
            if not source:
                return None
            target.append(source.pop(0))
        groups.append((left, right))
    return groups


@rule(*REDUCTIONS)
def reduce(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value:
    """Reduce wherever the axes lie."""
    members = as_members(operands[0], context.population)
    axes = equation.params["axes"]
    params = {**equation.params, "axes": tuple(sorted(members.dimension(axis) for axis in axes))}
    left = [axis for axis in members.order if axis not in axes]
    order = tuple(axis if axis == MEMBER else sum(a < axis for a in left) - 1 for axis in left)
    return Members(equation.primitive.bind(members.data, **params), order)


@rule("slice", "rev", "concatenate", "pad", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def along_axes(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """Operations whose parameters name axes: the names change, the data stays. Of weights, the table is cut."""
    name, params = equation.primitive.name, equation.params
    if all(isinstance(operand, Weight) for operand in operands):
        cut = _cut(name, params, [operand for operand in operands if isinstance(operand, Weight)])
        if cut is not None:
            return cut
    if name == "pad" and not is_shared(operands[1]):
        return None
    main = operands if name == "concatenate" else operands[:1]
    ready = [operand if is_shared(operand) else as_members(operand, context.population) for operand in main]
    order = max((value for value in ready if isinstance(value, Members)), key=lambda value: value.data.size).order
    arrays = [aligned(value, order, context.population) for value in ready]
    if name == "concatenate":
        member = order.index(MEMBER)
        arrays = [lax.broadcast_in_dim(a, _with(a.shape, member, context.members), range(a.ndim)) for a in arrays]
        return Members(lax.concatenate(arrays, order.index(params["dimension"])), order)
    (data,) = arrays
    if name == "slice":
        strides = params["strides"] or (1,) * (len(order) - 1)
        cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return Members(data[_by_order(order, [slice(*cut) for cut in cuts], slice(None))], order)
    if name == "pad":
        config = _by_order(order, params["padding_config"], (0, 0, 0))
        return Members(lax.pad(data, jax.numpy.asarray(operands[1]), config), order)
    if name == "rev":
        return Members(lax.rev(data, [order.index(axis) for axis in params["dimensions"]]), order)
    return Members(equation.primitive.bind(data, **{**params, "axis": order.index(params["axis"])}), order)


def _by_order(order: Sequence[int], of_axis: Sequence[Any], of_member: Any) -> tuple[Any, ...]:
    return tuple(of_member if axis == MEMBER else of_axis[axis] for axis in order)


def _with(shape: tuple[int, ...], dimension: int, length: int) -> tuple[int, ...]:
    return (*shape[:dimension], length, *shape[dimension + 1 :])


def _cut(name: str, params: dict[str, Any], weights: list[Weight]) -> Weight | None:
    slots, casts = [weight.slots for weight in weights], weights[0].casts
    if any(weight.casts != casts for weight in weights):
        return None
    if name == "concatenate":
        return Weight(np.concatenate(slots, params["dimension"]), casts)
    if name == "slice":
        strides = params["strides"] or (1,) * slots[0].ndim
        cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return Weight(slots[0][tuple(slice(*cut) for cut in cuts)], casts)
    return Weight(np.flip(slots[0], params["dimensions"]), casts) if name == "rev" else None
