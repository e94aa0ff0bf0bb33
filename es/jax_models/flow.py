"""The flow of a jaxpr: what becomes of the result of every product (see `pruning.uses.flows.flow`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from scipy import special

from es.jax_models.programs import Rules, run
from pruning.uses.flows.flow import Curve, Flow, Meeting, Signal
from pruning.uses.flows.recognition import GRID


@dataclass(frozen=True)
class _Fixed:
    """A value that does not depend on the network's inputs: the arrays it is made of, and the number that it is."""

    names: frozenset[str] = frozenset()
    number: Any = None


_Value = Signal | _Fixed

_PRODUCTS = frozenset({"dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"})
_MEETINGS: Mapping[str, Meeting] = {"add": "sum", "sub": "sum", "add_any": "sum", "mul": "product", "div": "product"}
_LOOKUPS = frozenset({"gather", "dynamic_slice"})
# No function of single elements, and all elements come together as in a product.
_ENDS = frozenset({"argmax", "argmin", "fft"})
_STATISTICS = frozenset({"reduce_max", "reduce_min", "reduce_prod", "reduce_sum"})
_PASSING = frozenset(
    {"broadcast_in_dim", "concatenate", "dynamic_update_slice", "expand_dims", "pad", "reshape", "rev"}
)
_PASSING |= {"slice", "sort", "split", "squeeze", "top_k", "transpose"}
_PASSING_STARTS = ("cum", "reduce_window", "scatter", "select_and_gather")
_KEEPS_A_NUMBER = frozenset({"broadcast_in_dim", "expand_dims", "reshape", "slice", "squeeze", "transpose"})

_ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.logical_and,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "convert_element_type": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "cos": np.cos,
    "cosh": np.cosh,
    "div": np.divide,
    "eq": np.equal,
    "erf": special.erf,
    "erfc": special.erfc,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "integer_pow": lambda x, y: np.power(x, float(y)),
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": special.expit,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.logical_not,
    "or": np.logical_or,
    "pow": np.power,
    "reduce_precision": lambda x: x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": lambda which, *cases: np.choose(np.asarray(which).astype(int), cases),
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
}


def jax_flow(program: Any, names: Sequence[str]) -> Flow:
    """Return the flow of a program.

    Args:
        program: the closed jaxpr.
        names: those of its first inputs, the network's arrays; empty for one that is not looked for. All others are
            the network's inputs.

    >>> import jax, jax.numpy as jnp
    >>> arrays = jnp.ones((3, 4)), jnp.ones((4, 1))
    >>> program = jax.make_jaxpr(lambda a, b, x: jax.nn.silu(x @ a) @ b)(*arrays, jnp.ones(3))
    >>> flow = jax_flow(program, ["a", "b"])
    >>> [(sorted(spot.names), [each.name for each in spot.before]) for spot in flow.spots if spot.names]
    [(['a'], ['linear']), (['b'], ['silu'])]
    """
    flow = Flow()
    arrays = [_Fixed(frozenset({name} - {""})) for name in names]
    inputs = [flow.source() for _ in program.jaxpr.invars[len(names) :]]
    constants = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    rules = Rules[_Value](
        lambda atom: _constant(atom.val if isinstance(atom, Literal) else constants.get(atom)),
        lambda step, taken: _plain(flow, step, taken),
        lambda value: flow.passed([value]) if isinstance(value, Signal) else value,
        lambda values: _either(flow, values),
    )
    for result in run(program.jaxpr, [*arrays, *inputs], rules):
        if isinstance(result, Signal):
            flow.output(result)
    return flow


def _constant(value: Any) -> _Fixed:
    if value is None:
        return _Fixed()
    dtype = jnp.result_type(value)
    if np.size(value) != 1 or not (dtype == np.bool_ or jnp.issubdtype(dtype, jnp.number)):
        return _Fixed()  # several numbers, or a random key
    number = np.asarray(value).reshape(())
    return _Fixed(number=(number if dtype == np.bool_ else number.astype(np.float64))[()])


def _either(flow: Flow, values: Sequence[_Value]) -> _Value:
    """Return what is known of a value that may be any of these."""
    signals = list(dict.fromkeys(value for value in values if isinstance(value, Signal)))
    fixed = [value for value in values if isinstance(value, _Fixed)]
    if signals:
        return signals[0] if len(signals) == 1 and not fixed else flow.passed(signals)
    numbers = {value.number for value in fixed}
    names = frozenset[str]().union(*(value.names for value in fixed))
    return _Fixed(names, numbers.pop() if len(numbers) == 1 else None)


def _plain(flow: Flow, step: Any, taken: list[_Value]) -> list[_Value]:
    """Return what is known of the results of one operation."""
    name = step.primitive.name
    signals = [value for value in taken if isinstance(value, Signal)]
    names = frozenset[str]().union(*(value.names for value in taken if isinstance(value, _Fixed)))
    if not signals:
        return [_Fixed(names, _number(step, [value for value in taken if isinstance(value, _Fixed)]))]
    if name == "optimization_barrier":
        return taken
    if name in _PRODUCTS:
        return [flow.product(names, signals)]
    if name in _LOOKUPS:
        first = taken[0]
        return [flow.passed([first]) if isinstance(first, Signal) else flow.product(first.names, signals)]
    if name in _ELEMENTWISE:
        return [_elementwise(flow, step, taken)]
    if name in _ENDS:
        return [flow.product((), signals)]
    if name in _STATISTICS or name in _PASSING or name.startswith(_PASSING_STARTS):
        return [flow.passed(signals, reduced=name in _STATISTICS) for _ in step.outvars]
    return [flow.lost(signals)]


def _elementwise(flow: Flow, step: Any, taken: list[_Value]) -> _Value:
    name = step.primitive.name
    chooses = name == "select_n"
    choosing = [value for value in taken[:1] if chooses and isinstance(value, Signal)]
    signals = [value for value in taken[chooses:] if isinstance(value, Signal)]
    numbers = all(isinstance(value, Signal) or value.number is not None for value in taken)

    def evaluate() -> Curve:
        curves = [value.curve if isinstance(value, Signal) else np.full(GRID.shape, value.number) for value in taken]
        return _computed(step, curves)

    how = "choice" if chooses else _MEETINGS.get(name, "other")
    made = flow.elementwise(how, signals, evaluate if numbers else None, choosing)
    return _Fixed(number=made.curve[0]) if made.constant else made


def _computed(step: Any, values: Sequence[Any]) -> Any:
    name, params = step.primitive.name, step.params
    more = {"y": params["y"]} if name == "integer_pow" else {}
    with np.errstate(all="ignore"):
        made = np.asarray(_ELEMENTWISE[name](*values, **more))
    if name == "convert_element_type" and not np.issubdtype(params["new_dtype"], np.inexact):
        return made.astype(bool if params["new_dtype"] == np.bool_ else np.int64)
    return made.astype(np.float64) if name == "convert_element_type" else made


def _number(step: Any, taken: Sequence[_Fixed]) -> Any:
    """Return the number that an operation makes of numbers; None where one of them is not known."""
    if not taken or any(value.number is None for value in taken):
        return None
    if step.primitive.name in _KEEPS_A_NUMBER:
        return taken[0].number
    if step.primitive.name not in _ELEMENTWISE:
        return None
    return _computed(step, [np.asarray(value.number) for value in taken])[()]
