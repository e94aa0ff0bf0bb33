"""Rules for windows: pooling as a few strided slices, which stay contiguous because examples lie innermost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from es.population.interpreter import Context, rule
from es.population.values import Members, Value, as_members, is_shared

Combine = Callable[[jax.Array, jax.Array], jax.Array]
COMBINE: dict[str, Combine] = {"max": jnp.maximum, "min": jnp.minimum, "add": jnp.add, "add_any": jnp.add}
UNROLLED = 8
"""Windows up to this length are a combination of slices; longer ones are left to XLA."""


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def named_window(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """Windows whose operation is in the name of the primitive."""
    members = as_members(operands[0], context.population)
    kind = equation.primitive.name.removeprefix("reduce_window_")
    dtype = members.data.dtype
    if kind != "sum" and not jnp.issubdtype(dtype, jnp.floating):
        return None
    start = jnp.asarray({"max": -jnp.inf, "min": jnp.inf, "sum": 0}[kind], dtype)
    return _windows(members, equation, "add" if kind == "sum" else kind, start)


@rule("reduce_window")
def general_window(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Value | None:
    """Windows with an operation of their own, if it is a maximum, minimum or sum with a shared start."""
    steps = equation.params["jaxpr"].eqns
    simple = len(steps) == 1 and len(operands) == 2 and steps[0].primitive.name in COMBINE
    if not simple or not is_shared(operands[1]) or is_shared(operands[0]):
        return None
    if set(steps[0].invars) != set(equation.params["jaxpr"].invars):
        return None
    name, start = steps[0].primitive.name, jnp.asarray(operands[1])
    members = _windows(as_members(operands[0], context.population), equation, name, start)
    return None if members is None else Members(COMBINE[name](members.data, start), members.order)


def _windows(members: Members, equation: core.JaxprEqn, name: str, start: jax.Array) -> Members | None:
    params, combine = equation.params, COMBINE[name]
    if any(step != 1 for step in params["base_dilation"]) or any(n > UNROLLED for n in params["window_dimensions"]):
        return None
    data = members.data
    each = zip(
        params["window_dimensions"], params["window_strides"], params["padding"], params["window_dilation"], strict=True
    )
    for axis, (window, stride, (low, high), dilation) in enumerate(each):
        if (window, stride, low, high) == (1, 1, 0, 0):
            continue
        dimension = members.dimension(axis)
        config = [(low, high, 0) if i == dimension else (0, 0, 0) for i in range(data.ndim)]
        data = lax.pad(data, start, config)
        span = (window - 1) * dilation + 1
        count = (data.shape[dimension] - span) // stride + 1
        slices = [
            lax.slice_in_dim(data, i * dilation, i * dilation + (count - 1) * stride + 1, stride, dimension)
            for i in range(window)
        ]
        data = reduce(combine, slices)
    return Members(data, members.order)
