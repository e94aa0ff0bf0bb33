"""Does a network treat every example of a batch on its own? Then a batch may be evaluated a few examples at a time.

Followed through the jaxpr: an axis of examples must stay apart in every operation. An operation that is not known
here, or one that mixes examples (batch statistics, attention over the batch), makes the answer no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from es.population.interpreter import called
from es.population.layout import ELEMENTWISE, REDUCTIONS, grouped

Axis = int | None
"""Where a value's examples lie; None if it has none."""


class _Mixed(Exception):
    """Examples meet."""


Follow = Callable[[core.JaxprEqn, Sequence[Axis], Sequence[tuple[int, ...]]], Axis]


def example_axes(jaxpr: core.Jaxpr, inputs: Sequence[Axis]) -> list[Axis] | None:
    """Return where the examples of every output lie, or None if examples meet on the way."""
    try:
        return _follow(jaxpr, inputs)
    except _Mixed:
        return None


def same_program(one: core.ClosedJaxpr, other: core.ClosedJaxpr) -> bool:
    """Tell whether two jaxprs are the same but for sizes: no number in them comes from the number of examples.

    >>> import jax
    >>> twice, mean = (lambda x: 2 * x), (lambda x: x.sum() / len(x))
    >>> few, many = np.ones(3, np.float32), np.ones(8, np.float32)
    >>> [same_program(jax.make_jaxpr(called)(few), jax.make_jaxpr(called)(many)) for called in (twice, mean)]
    [True, False]
    """
    if len(one.consts) != len(other.consts) or len(one.jaxpr.eqns) != len(other.jaxpr.eqns):
        return False
    if not all(a is b or np.array_equal(a, b) for a, b in zip(one.consts, other.consts, strict=True)):
        return False
    for a, b in zip(one.jaxpr.eqns, other.jaxpr.eqns, strict=True):
        if a.primitive is not b.primitive or len(a.invars) != len(b.invars):
            return False
        for x, y in zip(a.invars, b.invars, strict=True):
            literal = isinstance(x, core.Literal)
            if literal != isinstance(y, core.Literal) or (literal and not np.array_equal(x.val, y.val, equal_nan=True)):
                return False
        inner, its = called(a), called(b)
        if inner is not None and (its is None or not same_program(inner, its)):
            return False
    return True


def _follow(jaxpr: core.Jaxpr, inputs: Sequence[Axis]) -> list[Axis]:
    axes: dict[core.Var, Axis] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: core.Var | core.Literal) -> Axis:
        return None if isinstance(atom, core.Literal) else axes.get(atom)

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        inner = called(equation)
        if all(axis is None for axis in operands):
            results: Sequence[Axis] = [None] * len(equation.outvars)
        elif inner is not None:
            results = _follow(inner.jaxpr, operands)
        else:
            shapes = [atom.aval.shape for atom in equation.invars]  # pyright: ignore[reportAttributeAccessIssue]
            follow = FOLLOW.get(equation.primitive.name, _unknown)
            results = [follow(equation, operands, shapes)]
        axes.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _require(condition: bool) -> None:
    if not condition:
        raise _Mixed


def _unknown(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    raise _Mixed


def _same(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    """All operands agree, and those without examples do not vary along the axis."""
    found = {axis for axis in axes if axis is not None}
    _require(len(found) == 1)
    (axis,) = found
    _require(all(a is not None or not shape or shape[axis] == 1 for a, shape in zip(axes, shapes, strict=True)))
    return axis


def _broadcast(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    _require(len(axes) == 1 and axes[0] is not None)
    return equation.params["broadcast_dimensions"][axes[0]]


def _transpose(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    return equation.params["permutation"].index(axes[0])


def _reshape(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    groups = grouped(shapes[0], equation.outvars[0].aval.shape)  # pyright: ignore[reportAttributeAccessIssue]
    alone = [after for before, after in groups or [] if before == [axes[0]] and len(after) == 1]
    _require(len(alone) == 1)
    return alone[0][0]


def _reduce(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    gone, axis = equation.params["axes"], axes[0]
    _require(axis is not None and axis not in gone)
    return axis - sum(other < axis for other in gone)  # pyright: ignore[reportOptionalOperand]


def _dot(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    contract, batch = equation.params["dimension_numbers"]
    if None not in axes:
        _require(
            axes[0] in batch[0] and batch[0].index(axes[0]) == batch[1].index(axes[1]) if axes[1] in batch[1] else False
        )
        return batch[0].index(axes[0])
    side = 0 if axes[1] is None else 1
    axis = axes[side]
    _require(axis not in contract[side] and axis not in batch[side])
    free = [
        [a for a in range(len(s)) if a not in c and a not in b] for s, c, b in zip(shapes, contract, batch, strict=True)
    ]
    return len(batch[0]) + (len(free[0]) if side else 0) + free[side].index(axis)  # pyright: ignore[reportArgumentType]


def _convolution(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    numbers = equation.params["dimension_numbers"]
    _require(axes[1] is None and axes[0] == numbers.lhs_spec[0] and equation.params["batch_group_count"] == 1)
    return numbers.out_spec[0]


def _window(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    axis, params = axes[0], equation.params
    _require(axis is not None and all(other is None for other in axes[1:]))
    still = (params["window_dimensions"][axis], params["window_strides"][axis], tuple(params["padding"][axis]))
    _require(still == (1, 1, (0, 0)) and params["base_dilation"][axis] == 1)
    return axis


def _along(name: str) -> Follow:
    def follow(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
        axis = _same(equation, axes, shapes) if name == "dimension" else axes[0]
        _require(equation.params[name] != axis)
        return axis

    return follow


def _slice(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    axis, params = axes[0], equation.params
    _require(axis is not None)
    cut = (params["start_indices"][axis], params["limit_indices"][axis], (params["strides"] or {axis: 1})[axis])
    _require(cut == (0, shapes[0][axis], 1))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return axis


def _pad(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    _require(axes[0] is not None and axes[1] is None)
    _require(tuple(equation.params["padding_config"][axes[0]]) == (0, 0, 0))  # pyright: ignore[reportArgumentType]
    return axes[0]


def _gather(equation: core.JaxprEqn, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Axis:
    """Rows of a table that all examples share."""
    numbers: Any = equation.params["dimension_numbers"]
    _require(axes[0] is None and axes[1] is not None and axes[1] < len(shapes[1]) - 1)  # pyright: ignore[reportOptionalOperand]
    _require(not numbers.operand_batching_dims)
    result = equation.outvars[0].aval.ndim  # pyright: ignore[reportAttributeAccessIssue]
    return [axis for axis in range(result) if axis not in numbers.offset_dims][axes[1]]  # pyright: ignore[reportArgumentType, reportCallIssue]


FOLLOW: dict[str, Follow] = {
    **dict.fromkeys(ELEMENTWISE, _same),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum", "reduce_window"), _window),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along("axis")),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "broadcast_in_dim": _broadcast,
    "concatenate": _along("dimension"),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "gather": _gather,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
}
