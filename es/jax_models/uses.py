"""How a plain JAX function uses its arrays: read off its jaxpr, whatever library wrote it and whatever they are called.

What the axes of an array are follows from the product that it is in: `dot_general` and `conv_general_dilated` say which
axes they sum over. Transposing, casting and scaling an array on the way there changes nothing; after any other
operation (a reshape) its axes are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from es.jax_models.flow import jax_flow
from es.jax_models.programs import Rules, run
from es.network import Arrays, Network
from pruning.errors import first_line
from pruning.uses.axes import Axes
from pruning.uses.flows.destinations import with_destinations
from pruning.uses.uses import ADDED, NOTHING, TABLE, UNUSED, Trace, Uses, joined

Places = tuple[int, ...]  # the array's own axes, in the order in which a value has them
_MULTIPLY = {"dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"}
_SUMS = {"add", "sub", "concatenate", "add_any"}
# What an array goes through and is still 0 where it was 0 (or its element is, elsewhere).
_KEEP_ZEROS = frozenset(
    {
        "abs",
        "broadcast_in_dim",
        "ceil",
        "complex",
        "concatenate",
        "conj",
        "convert_element_type",
        "copy",
        "div",
        "dynamic_slice",
        "expand_dims",
        "floor",
        "gather",
        "imag",
        "integer_pow",
        "mul",
        "neg",
        "optimization_barrier",
        "pad",
        "real",
        "reduce_precision",
        "reshape",
        "rev",
        "round",
        "select_n",
        "sharding_constraint",
        "sign",
        "sin",
        "sinh",
        "slice",
        "sqrt",
        "square",
        "squeeze",
        "stop_gradient",
        "tanh",
        "transpose",
    }
)


@dataclass(frozen=True)
class _Value:
    """A value of the program: what it depends on, and where it is an array of the network's, which one and its axes."""

    trace: Trace = NOTHING
    name: str = ""
    places: Places | None = None
    zeros: bool = True  # whether it is 0 where the array is


@dataclass
class _Found:
    shapes: Mapping[str, tuple[int, ...]]
    order: list[str] = field(default_factory=list)
    axes: dict[str, Axes | None] = field(default_factory=dict)
    multiplied: set[str] = field(default_factory=set)
    factors: set[str] = field(default_factory=set)
    apart: dict[str, str] = field(default_factory=dict)

    def used(self, names: Iterable[str]) -> None:
        self.order += [name for name in self.shapes if name in set(names) and name not in self.order]

    def product(self, value: _Value, outputs: Sequence[int], inputs: Sequence[int]) -> None:
        """An array is a factor of a product whose axes are these; of two products that differ neither is believed."""
        if value.zeros:
            self.factors.add(value.name)
        if value.places is None:
            self.axes[value.name] = None
            return
        own = [tuple(sorted(value.places[axis] for axis in axes)) for axes in (outputs, inputs)]
        stacked = tuple(axis for axis in range(len(self.shapes[value.name])) if axis not in value.places)
        axes = Axes(self.shapes[value.name], (*stacked, *own[0]), own[1])
        self.axes[value.name] = axes if self.axes.get(value.name, axes) == axes else None


def jax_uses(network: Network, params: Arrays, names: Iterable[str], inputs: Any) -> Uses:
    """Follow a function from its inputs to its outputs.

    Args:
        network: the function.
        params: its arrays, by name; only their shapes and types count.
        names: of those that are looked for.
        inputs: a small batch.

    >>> import jax.numpy as jnp
    >>> network = Network(lambda p, x: jnp.tanh(x @ p["b"]) @ p["a"].T, ("a", "b"))
    >>> uses = jax_uses(network, {"a": jnp.ones((1, 4)), "b": jnp.ones((3, 4))}, ["a", "b"], jnp.ones((2, 3)))
    >>> uses.order, uses.outputs, uses.axes["a"].outputs, uses.axes["b"].outputs
    (('b', 'a'), frozenset({'a'}), (0,), (1,))
    """
    shapes = {name: tuple(params[name].shape) for name in names}
    try:
        program = jax.make_jaxpr(network.apply)(dict(params), inputs)
    except Exception as error:  # a caller's function may do anything
        return Uses(reason=first_line(error))
    leaves = sorted(params)  # a dictionary's leaves lie in the order of its keys
    given = [
        _Value(Trace(False, frozenset({name})), name, tuple(range(len(shapes[name])))) if name in shapes else _Value()
        for name in leaves
    ]
    live = [_Value(Trace(True))] * (len(program.jaxpr.invars) - len(leaves))
    found = _Found(shapes)
    rules = Rules(lambda _: _Value(), lambda step, taken: [_plain(step, taken, found)], _sliced, _either)
    results = run(program.jaxpr, [*given, *live], rules)
    outputs = frozenset[str]().union(*(value.trace.names for value in results))
    axes = {name: axes for name, axes in found.axes.items() if axes is not None and name}
    axes |= {name: Axes(shape, tuple(range(len(shape))), ()) for name, shape in shapes.items() if len(shape) < 2}
    reason = "" if outputs else "its outputs do not depend on them"
    if reason:
        return Uses(axes, reason=reason)
    apart = {n: why for n, why in found.apart.items() if why == TABLE or n not in found.multiplied}
    apart |= {n: UNUSED for n in shapes if n not in found.order}
    factors = frozenset(found.factors) - apart.keys() - {""}
    uses = Uses(axes, tuple(found.order), outputs, factors, apart)
    try:
        flow = jax_flow(program, [name if name in shapes else "" for name in leaves])
    except Exception:  # a caller's function may hold any operation: where its results go is then not known
        flow = None
    return with_destinations(uses, flow)


def _plain(step: Any, taken: Sequence[_Value], found: _Found) -> _Value:
    """Return the results of one operation."""
    trace, used = joined([value.trace for value in taken])
    found.used(used)
    kind = step.primitive.name
    if kind == "gather" and taken[0].name and not taken[0].trace.live and taken[1].trace.live:
        if not taken[1].trace.names:  # the index comes with the data: the network did not compute it
            found.apart[taken[0].name] = TABLE
    elif kind in _SUMS and trace.live:
        for value in taken:
            if value.name and not value.trace.live:
                found.apart.setdefault(value.name, ADDED)
    if kind in _MULTIPLY and trace.live:
        found.multiplied |= used
        for side, value in enumerate(taken[:2]):
            if value.name and not value.trace.live:
                found.product(value, *_axes(step, side))
    arrays = [(value, atom) for value, atom in zip(taken, step.invars, strict=True) if value.name]
    if trace.live or len(arrays) != 1:
        return _Value(trace)
    (array, atom), places = arrays[0], None
    if step.primitive.name == "transpose" and array.places is not None:
        places = tuple(array.places[axis] for axis in step.params["permutation"])
    elif step.outvars[0].aval.shape == atom.aval.shape and step.primitive.name != "reshape":
        places = array.places
    divided = kind == "div" and taken[0] is not array
    return _Value(trace, array.name, places, array.zeros and kind in _KEEP_ZEROS and not divided)


def _axes(step: Any, side: int) -> tuple[list[int], list[int]]:
    """Return the axes of a factor that number outputs, and those that are summed over."""
    if step.primitive.name == "dot_general":
        contracted, batched = step.params["dimension_numbers"]
        inputs, count = list(contracted[side]), len(step.invars[side].aval.shape)
        del batched  # other units for each entry of a batch
        return [axis for axis in range(count) if axis not in inputs], inputs
    if step.primitive.name.startswith("ragged"):
        (contracted, _), count = (
            step.params["ragged_dot_dimension_numbers"].dot_dimension_numbers,
            len(step.invars[side].aval.shape),
        )
        return [axis for axis in range(count) if axis not in contracted[side]], list(contracted[side])
    out, into, *_ = step.params["dimension_numbers"].rhs_spec
    return [out], [into]


def _sliced(value: _Value) -> _Value:
    """Return one entry along the first axis: each entry of stacked layers has its own units."""
    return value if value.places is None else replace(value, places=value.places[1:])


def _either(values: Sequence[_Value]) -> _Value:
    """Return what is known of a value that may be any of these."""
    if len(set(values)) == 1:
        return values[0]
    live = [value.trace for value in values if value.trace.live] or [value.trace for value in values]
    return _Value(Trace(live[0].live, frozenset[str]().union(*(trace.names for trace in live))))
