"""Repairs of a start: other values for the weights that a mask keeps, so that the network can train.

    mask, activation, place ─▶ Weight ─┐
                      values of a start┼─▶ repair ─▶ values, and a report of what changed
    how the layer's output varies, ────┘
    where the repair asks for that

A repair sees one matrix [out, in, *taps] at a time, whatever the framework, as an initializer does: each gate of a
recurrent layer, each group of a convolution, each projection of an attention by itself. One that measures the network
sees the parts of a layer one below the other, because they give out one result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, unknown
from pruning.registry import Registry, known_settings, registered_or_own, settings_of_function, summary_of
from pruning.starts.left_alone import LeftAlone
from pruning.starts.tensor import Tensor
from pruning.starts.weight import Array, Weight

Report = Any
"""A small frozen dataclass of numbers and text, one class for each repair: what it found, and what it changed."""


@dataclass(frozen=True, eq=False)
class Mended:
    """What a repair returns.

    Attributes:
        values: [out, in, *taps].
        report: what changed.
    """

    values: Array
    report: Report


Mend = Callable[..., Mended]
"""`mend(weight, values, **settings)`, with `needs_outputs` `mend(weight, values, output, **settings)`.

`values` are 0 where the mask removes; those that come back do not count there. `output(values)` runs the network with
other values for this weight, and returns the standard deviation of what its layer gives out.
"""

Outputs = Callable[[Mapping[str, Array]], Mapping[str, float]]
"""Runs the network with these weights, by tensor name, and returns for each tensor the standard deviation of what its
layer gives out (before the activation), over examples, units and positions."""


@dataclass(frozen=True)
class Repair:
    """A repair.

    Attributes:
        name: the name that users type.
        mend: mends one weight; its keyword arguments with defaults are the repair's settings.
        needs_outputs: whether it measures what layers give out: it needs data, and mends layers in forward order.
        to: for `Mend`; keyword arguments that were set.
    """

    name: str
    mend: Mend
    needs_outputs: bool = False
    to: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return its settings with their defaults."""
        return settings_of_function(self.mend)


REPAIRS: Registry[Repair] = Registry("repair", "pruning.repairs", listed="repairs")


def repair(name: str, *, source: str, needs_outputs: bool = False) -> Callable[[Mend], Mend]:
    """Register a repair; its docstring's first line is its summary.

    Args:
        name: the name that users type.
        source: the paper (or page) that defines it.
        needs_outputs: whether it measures what layers give out.
    """

    def register(mend: Mend) -> Mend:
        REPAIRS.add(name, Repair(name, mend, needs_outputs), summary_of(mend), source)
        return mend

    return register


def get_repair(name: str | Mend, settings: Mapping[str, Any] | None = None) -> Repair:
    """Return the repair called `name` with its settings, or the user's own: a function, or `package.module:function`.

    Raises:
        UnknownName: neither registered nor importable, or a setting that the repair does not have.

    >>> get_repair("isometry", {"steps": 50}).to
    {'steps': 50}
    """
    found = registered_or_own(REPAIRS, name, lambda each: each.mend, Repair)
    return replace(found, to=known_settings(found.name, found.mend, settings))


@dataclass(frozen=True)
class Repaired:
    """Weights that a repair changed.

    Attributes:
        values: by tensor name, of the tensor's own shape and of the dtype that was given; 0 where the mask removes.
        reports: by tensor name, one report for each matrix that was mended.
        left: by tensor name, why the repair left it as it was.
    """

    values: Mapping[str, Array]
    reports: Mapping[str, tuple[Report, ...]]
    left: Mapping[str, str]


def repaired(
    tensors: Sequence[Tensor], values: Mapping[str, Array], how: Repair, outputs: Outputs | None = None
) -> Repaired:
    """Repair tensors; the values of those that are not among `tensors` stay, and are not returned.

    Args:
        tensors: what is repaired. Where each has a place, they are taken in the order of places, otherwise as given.
        values: by tensor name, of the tensor's own shape; all that `outputs` must know.
        how: the repair.
        outputs: measures the network; only for a repair that needs it.

    Raises:
        BadValue: values that do not fit a tensor or are not finite; a repair that returned such values; no `outputs`
            for a repair that needs them.

    >>> from pruning.starts.tensor import Layout
    >>> tensor = Tensor("fc", np.array([[False, True], [True, False]]), Layout((2, 2), (), (0,), (1,)))
    >>> result = repaired([tensor], {"fc": np.array([[9.0, 0.5], [3.0, 9.0]])}, get_repair("isometry"))
    >>> abs(result.values["fc"]).round(6).tolist(), result.reports["fc"][0].floor
    ([[0.0, 1.0], [1.0, 0.0]], 0.0)
    """
    if how.needs_outputs and outputs is None:
        raise BadValue(f"repair {how.name!r} measures what the layers give out: it needs data to run the network with")
    order = [tensor.place.index for tensor in tensors if tensor.place is not None]
    if len(order) == len(tensors):
        tensors = [tensor for _, tensor in sorted(zip(order, tensors, strict=True), key=lambda pair: pair[0])]
    current = dict(values) | {tensor.name: _masked(tensor, values) for tensor in tensors}
    reports: dict[str, tuple[Report, ...]] = {}
    left: dict[str, str] = {}
    for tensor in tensors:
        try:
            if how.needs_outputs:
                mended = [_measured(tensor, current, how, cast(Outputs, outputs))]
            else:
                parts = zip(tensor.weights(), tensor.layout.cut(current[tensor.name]), strict=True)
                mended = [_checked(how, weight, how.mend(weight, part, **how.to)) for weight, part in parts]
        except LeftAlone as why:
            left[tensor.name] = str(why)
            continue
        reports[tensor.name] = tuple(each.report for each in mended)
        current[tensor.name] = _joined(tensor, mended, current[tensor.name])
    return Repaired({tensor.name: current[tensor.name] for tensor in tensors}, reports, left)


def _masked(tensor: Tensor, values: Mapping[str, Array]) -> Array:
    if tensor.name not in values:
        raise unknown("tensor", tensor.name, values)
    given = np.asarray(values[tensor.name])
    if given.shape != tensor.keep.shape:
        raise BadValue(f"values of {tensor.name!r} have shape {given.shape}, its mask {tensor.keep.shape}")
    if not np.isfinite(given[tensor.keep]).all():
        raise BadValue(f"values of {tensor.name!r} are not finite: no repair helps, draw them again")
    return np.where(tensor.keep, given, given.dtype.type(0))


def _measured(tensor: Tensor, current: Mapping[str, Array], how: Repair, outputs: Outputs) -> Mended:
    """Mend the matrices of a tensor one below the other, with a function that runs the network."""
    shape = tensor.layout.cut(tensor.keep).shape
    stacked = (shape[0] * shape[1], *shape[2:])
    keep = cast(NDArray[np.bool_], tensor.layout.cut(tensor.keep).reshape(stacked))
    weight = Weight(tensor.name, keep, tensor.kinds[0], "", tensor.activation, tensor.place)

    def output(values: Array) -> float:
        layer = tensor.layout.joined(np.where(keep, values, 0).reshape(shape), tensor.keep.shape)
        stds = outputs({**current, tensor.name: layer.astype(current[tensor.name].dtype)})
        if tensor.name not in stds:
            raise BadValue(f"what the layer of {tensor.name!r} gives out was not measured: leave it out of the repair")
        return float(stds[tensor.name])

    before = tensor.layout.cut(current[tensor.name]).reshape(stacked)
    return _checked(how, weight, how.mend(weight, before, output, **how.to))


def _checked(how: Repair, weight: Weight, mended: Mended) -> Mended:
    if mended.values.shape != weight.shape:
        raise BadValue(f"repair {how.name!r} made shape {mended.values.shape} of {weight}, not {weight.shape}")
    if not np.isfinite(mended.values[weight.keep]).all():
        raise BadValue(f"repair {how.name!r} made numbers for {weight} that are not finite")
    return Mended(np.where(weight.keep, mended.values, 0), mended.report)


def _joined(tensor: Tensor, mended: Sequence[Mended], before: Array) -> Array:
    matrices = np.stack([each.values for each in mended]).reshape(tensor.layout.cut(before).shape)
    return cast(Array, tensor.layout.joined(matrices, before.shape).astype(before.dtype))
