"""A rule for convolutions: patches side by side and one batched matrix product, never a grouped convolution.

Examples lie innermost, so that a patch is made of contiguous copies and no layout has to change:

    input [P, G, C, *space, N]  ──patches──▶  [P, G, C·window, *out·N]  ──weights [P, G, O, C·window]──▶  [P, G, O, …]

Patches over all kernel axes hold every input once for each place of the kernel. Where that is too many bytes, patches
are made over all kernel axes but the first; the product has one row for each output and kernel row, and its rows are
added up, each shifted by its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from es.population.cost import machine
from es.population.interpreter import Context, rule
from es.population.products import choose, matmul, product
from es.population.values import MEMBER, Members, Value, Weight, as_members, is_shared, size


@dataclass(frozen=True)
class Window:
    """How a kernel moves along one axis of space."""

    length: int
    stride: int
    dilation: int
    low: int
    high: int

    def outputs(self, inputs: int) -> int:
        """Return the number of places of the kernel."""
        return (inputs + self.low + self.high - (self.length - 1) * self.dilation - 1) // self.stride + 1


@rule("conv_general_dilated")
def convolution(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """A convolution with a kernel for each member."""
    params, (inputs, kernel) = equation.params, operands
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if is_shared(kernel) or params["batch_group_count"] != 1 or not all(equation.outvars[0].aval.shape):  # pyright: ignore[reportAttributeAccessIssue]
        return None
    each = zip(
        [kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
        params["window_strides"],
        params["rhs_dilation"],
        params["padding"],
        strict=True,
    )
    windows = [Window(length, stride, dilation, *padding) for length, stride, dilation, padding in each]
    if isinstance(kernel, Weight):
        kernel = Weight(kernel.slots.transpose(numbers.rhs_spec), kernel.casts)
    else:
        kernel = Members(
            as_members(kernel, context.population).ordered((MEMBER, *numbers.rhs_spec)), (MEMBER, *range(kernel.ndim))
        )
    activation = _examples_last(context, inputs, numbers.lhs_spec)
    activation = _dilated(activation, params["lhs_dilation"])
    result = _convolve(context, activation, kernel, windows, groups, params)
    n, c, *space = numbers.out_spec
    return Members(
        result.data, tuple({MEMBER: MEMBER, 0: c, len(space) + 1: n}.get(a, _at(space, a)) for a in result.order)
    )


def _at(space: Sequence[int], axis: int) -> int:
    return space[axis - 1] if 0 < axis <= len(space) else axis


def _examples_last(context: Context, inputs: Value, spec: Sequence[int]) -> jax.Array:
    """Return [C, *space, N] or [P, C, *space, N]."""
    order = (*spec[1:], spec[0])
    if is_shared(inputs):
        return jnp.transpose(jnp.asarray(inputs), order)
    return as_members(inputs, context.population).ordered((MEMBER, *order))


def _dilated(activation: jax.Array, dilation: Sequence[int]) -> jax.Array:
    if all(step == 1 for step in dilation):
        return activation
    first = activation.ndim - 1 - len(dilation)
    config = [(0, 0, 0)] * first + [(0, 0, step - 1) for step in dilation] + [(0, 0, 0)]
    return lax.pad(activation, jnp.zeros((), activation.dtype), config)


def _convolve(
    context: Context,
    activation: jax.Array,
    kernel: Weight | Members,
    windows: Sequence[Window],
    groups: int,
    params: dict[str, Any],
) -> Members:
    """Return the result with axes 0 = channels, 1… = space, last = examples.

    Args:
        context: the context of the evaluation.
        activation: [C, *space, N] or [P, C, *space, N].
        kernel: axes O, C / G, *window.
        windows: one for each axis of space.
        groups: G; a group of outputs reads its own group of inputs.
        params: the parameters of the equation.
    """
    space, examples = activation.shape[-1 - len(windows) : -1], activation.shape[-1]
    out = [window.outputs(length) for window, length in zip(windows, space, strict=True)]
    outputs, inner = kernel.shape[0], kernel.shape[1]
    shared = activation.ndim == len(windows) + 2
    by_rows = groups == 1 and not shared and isinstance(kernel, Weight) and _rows_pay(outputs, inner, windows)
    columns = size(out) * examples
    if groups > 1 or isinstance(kernel, Members):
        patches = _patches(activation, windows, range(len(windows)))
        return _grouped(context, patches, kernel, groups, (*out, examples), params)
    if not by_rows:
        patches = _patches(activation, windows, range(len(windows)))
        flat = patches.reshape(*patches.shape[: 0 if shared else 1], -1, columns)
        matrix = kernel.slots.reshape(outputs, -1)
        chosen = choose(matrix, context.members, columns, shared)
        result = matmul(context, matrix, kernel.casts, flat, chosen, params)
        order = (*result.order[:2], *range(1, len(windows) + 2))
        return Members(result.data.reshape(*result.data.shape[:2], *out, examples), order)
    patches = _patches(activation, windows, range(1, len(windows)))
    lines = space[0]
    flat = patches.reshape(context.members, -1, lines * size(out[1:]) * examples)
    matrix = np.moveaxis(kernel.slots, 2, 0).reshape(windows[0].length * outputs, -1)
    chosen = choose(matrix, context.members, flat.shape[-1], shared)
    result = matmul(context, matrix, kernel.casts, flat, chosen, params)
    parts = result.data.reshape(context.members, windows[0].length, outputs, lines, -1)
    summed = _shifted_sum(parts, windows[0], out[0])
    order = (MEMBER, *range(len(windows) + 2))
    return Members(summed.reshape(context.members, outputs, *out, examples), order)


def _rows_pay(outputs: int, inner: int, windows: Sequence[Window]) -> bool:
    """Tell whether fewer numbers are written if the first kernel axis is summed after the product."""
    first, rest = windows[0], size([window.length for window in windows[1:]])
    if first.stride != 1 or first.length == 1 or not machine().tiles:
        return False
    return 1.5 * first.length * outputs + inner * rest < inner * rest * first.length


def _patches(activation: jax.Array, windows: Sequence[Window], along: Sequence[int]) -> jax.Array:
    """Return [.., C, *space, N] as [.., C, places of the kernel, *out, N], unrolled along some axes of space."""
    first, unrolled = activation.ndim - 1 - len(windows), [windows[axis] for axis in along]
    if math.prod(window.length for window in unrolled) > 1:
        # or XLA computes what leads to the activation once for every place of the kernel
        activation = lax.optimization_barrier(activation)
    zero, parts = jnp.zeros((), activation.dtype), []
    for place in itertools.product(*(range(window.length) for window in unrolled)):
        part = activation
        for axis, window, step in zip(along, unrolled, place, strict=True):
            length = activation.shape[first + axis]
            covered = (window.outputs(length) - 1) * window.stride + 1
            # padded for each place on its own: one padded copy for all would be one more pass over memory
            before = window.low - step * window.dilation
            config = [(0, 0, 0)] * part.ndim
            config[first + axis] = (before, covered - length - before, 0)
            part = lax.slice_in_dim(lax.pad(part, zero, config), 0, None, window.stride, first + axis)
        parts.append(part)
    return jnp.expand_dims(parts[0], first) if len(parts) == 1 else jnp.stack(parts, axis=first)


def _shifted_sum(parts: jax.Array, window: Window, out: int) -> jax.Array:
    """Return the sum over kernel rows, each shifted by its place; rows that fall on padding are left out.

    Args:
        parts: [P, kernel rows, O, lines of the input, rest].
        window: of the first axis of space, stride 1.
        out: lines of the result.

    Returns:
        [P, O, out, rest].
    """
    lines = parts.shape[3]
    shifts = [i * window.dilation - window.low for i in range(window.length)]

    def terms(line: int) -> tuple[int, ...]:
        return tuple(i for i, shift in enumerate(shifts) if 0 <= line + shift < lines)

    runs = [list(run) for _, run in itertools.groupby(range(out), key=terms)]
    pieces = []
    for run in runs:
        begin, end = run[0], run[-1] + 1
        slices = [parts[:, i, :, begin + shifts[i] : end + shifts[i]] for i in terms(begin)]
        empty = jnp.zeros((parts.shape[0], parts.shape[2], end - begin, parts.shape[4]), parts.dtype)
        pieces.append(sum(slices[1:], slices[0]) if slices else empty)
    return jnp.concatenate(pieces, axis=2)


def _grouped(
    context: Context,
    patches: jax.Array,
    kernel: Weight | Members,
    groups: int,
    tail: tuple[int, ...],
    params: dict[str, Any],
) -> Members:
    """Return the dense product group by group; `tail` is the shape of space and examples of the result."""
    outputs = kernel.shape[0]
    weights = as_members(kernel, context.population).ordered((MEMBER, *range(kernel.ndim)))
    weights = weights.reshape(context.members, groups, outputs // groups, -1)
    inner = weights.shape[-1]
    if patches.ndim == len(tail) + 2:
        flat = patches.reshape(groups, inner, size(tail))
        result = product("pgoi,gir->gpor", weights, flat, params)
        result = jnp.swapaxes(result, 0, 1) if groups > 1 else result
    else:
        flat = patches.reshape(context.members, groups, inner, size(tail))
        result = product("pgoi,pgir->pgor", weights, flat, params)
    return Members(result.reshape(context.members, outputs, *tail), (MEMBER, *range(len(tail) + 1)))
