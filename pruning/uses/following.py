"""A forward pass of PyTorch that is listened to, operation by operation: what becomes of every weight in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from pruning.uses.axes import Axes
from pruning.uses.operations import Operations
from pruning.uses.places import NOWHERE, Origin, Places, base_name, carried, varies, whole
from pruning.uses.products import CONVOLUTIONS, Factor, product_of
from pruning.uses.torch_axes import axes_in_convolution
from pruning.uses.uses import ADDED, COMPUTED, NOTHING, SCALES, TABLE, UNUSED, Trace, Uses, joined

# What looks entries up by an index; the table is the first argument.
_LOOKUPS = frozenset({"embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"})
_INDEXED = frozenset({"index", "index_select", "gather", "take", "take_along_dim"})
_SUMS = frozenset({"add", "sub", "rsub", "cat", "stack", "index_put", "copy", "where", "add_relu", "lerp"})
_ELEMENTWISE = frozenset({"mul", "div", "addcmul"})


class Following(Operations):
    """Knows of every piece of memory what it depends on: views and writes in place follow by themselves."""

    def __init__(self, weights: Mapping[str, torch.Tensor], inputs: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._weights = dict(weights)
        self._traces: dict[int, Trace] = {}
        self._places: dict[int, dict[Any, Places]] = {}
        self._alive: list[Any] = []  # memory that is in use is never another's
        self._traces_only = False
        self._order: list[str] = []
        self._axes: dict[str, set[Axes | None]] = {}
        self._chosen: dict[str, bool] = {}  # of weights that an index chose: whether what it chose was a factor
        self._apart: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._rows: dict[str, tuple[int, ...]] = {}
        self._work: dict[str, float] = {}
        self._total = 0.0
        for name, tensor in weights.items():
            self.set(tensor, Trace(False, self.trace(tensor).names | {name}))
            self._place(tensor, whole(name, tensor))
        for leaf in inputs:
            self.set(leaf, Trace(True))

    def uses(self, by_kind: Mapping[str, Axes], outputs: frozenset[str], reason: str) -> Uses:
        """Return the uses that were found.

        Args:
            by_kind: axes that are known otherwise, and win.
            outputs: the tensors that make the outputs.
            reason: why the rest is not known; empty where it is.
        """
        if reason:
            return Uses(by_kind, reason=reason)
        own = {name: next(iter(seen)) for name, seen in self._axes.items() if len(seen) == 1}
        axes = {**{name: axes for name, axes in own.items() if axes is not None}, **by_kind}
        tables = {name for name, why in self._apart.items() if why == TABLE}
        tables |= {name for name, multiplied in self._chosen.items() if not multiplied}  # codes of a codebook
        factors = frozenset(self._axes) - tables
        apart = {name: TABLE if name in tables else self._why(name) for name in self._weights if name not in factors}
        return Uses(axes, tuple(self._order), outputs, factors, apart, dict(self._work), self._total, dict(self._rows))

    def trace(self, tensor: torch.Tensor) -> Trace:
        """Return what is known of a tensor."""
        return self._traces.get(_memory(tensor), NOTHING)

    def weights_in(self, tensor: torch.Tensor) -> frozenset[str]:
        """Return the weights that a value is made of, whichever an index chose; none for any other activation."""
        trace = self.trace(tensor)
        return frozenset(each.name for each in self._places_of(tensor)) or (frozenset() if trace.live else trace.names)

    def set(self, tensor: torch.Tensor, trace: Trace) -> None:
        """Remember it."""
        self._traces[_memory(tensor)] = trace
        self._alive.append(tensor.untyped_storage())

    @contextlib.contextmanager
    def only_traces(self) -> Iterator[None]:
        """Listen on, but for what depends on what alone: uses are those of the network, not of its loss."""
        self._traces_only = True
        try:
            with self:
                yield
        finally:
            self._traces_only = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        trace, used = joined([self.trace(tensor) for tensor in given])
        if not self._traces_only:
            self._order += [name for name in self._weights if name in used and name not in self._order]
            self._multiplied(func, args, result)
            places = self._moved(func, args, kwargs, given, made, trace)
            if func._schema.is_mutable:
                for tensor in made:
                    self._places.pop(_memory(tensor), None)
            for tensor, found in zip(made, places, strict=True):
                if found:
                    self._place(tensor, found)
        for tensor in made:
            if trace != NOTHING:
                self.set(tensor, trace)
        return result

    def _multiplied(self, func: Any, args: Sequence[Any], result: Any) -> None:
        """Note the weights of a product."""
        product = product_of(func, args, result)
        if product is None:
            return
        self._total += product.work
        for factor in product.factors:
            found = self._places_of(factor.tensor)
            if not self.trace(factor.partner).live:
                if self.trace(factor.partner).names:
                    self._say(found, "multiplied by another weight, not by activations")
                continue
            self._met(func, args, factor, found)
            parts = sum(self._weights[origin.name].numel() for origin in found)
            for origin in found:
                weight = self._weights[origin.name]
                kernel = axes_in_convolution(args, weight) if base_name(func) in CONVOLUTIONS else None
                axes = kernel or _axes(found, origin, factor, weight)
                self._axes.setdefault(origin.name, set()).add(axes)  # of two that differ neither is believed
                self._work[origin.name] = (
                    self._work.get(origin.name, 0) + product.work * factor.share * weight.numel() / parts
                )
                if origin.chosen:
                    self._chosen[origin.name] = True
            trace = self.trace(factor.tensor)
            if not found and not trace.live:
                for name in trace.names:
                    self._lost.setdefault(name, base_name(func))

    def _met(self, func: Any, args: Sequence[Any], factor: Factor, places: Places) -> None:
        """Hear of a weight that activations are multiplied by; for those who listen for more."""

    def _moved(
        self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], made: list[torch.Tensor], trace: Trace
    ) -> list[Places]:
        """Return where the elements of an operation's results come from, and note its other uses of weights."""
        name = base_name(func)
        places = [self._places_of(tensor) for tensor in given]
        if not any(places) or not made:
            return [NOWHERE] * len(made)
        if name in _LOOKUPS or name in _INDEXED:
            index = [self.trace(tensor) for tensor in given[1:]]
            chosen = any(each.live and each.names for each in index)
            if name in _LOOKUPS or (not chosen and any(each.live for each in index)):
                self._say(places[0], TABLE)
                return [NOWHERE] * len(made)
            if not chosen:
                self._say(places[0], "a table of which fixed entries are looked up (positions)")
                return [NOWHERE] * len(made)
            places[0] = {Origin(origin.name, True): at for origin, at in places[0].items()}
            for origin in places[0]:
                self._chosen.setdefault(origin.name, False)
        known = {_view(tensor): at for tensor, at in zip(given, places, strict=True)}
        data = given[:1] if name in _INDEXED else given
        activations = any(self.trace(t).live and not at for t, at in zip(data, places, strict=False))
        if activations and (name in _SUMS or (product_of(func, args, made[0]) is None and name != "mul")):
            how = ADDED if name in _SUMS else f"used by {name} on activations"
            how = SCALES if name in _ELEMENTWISE else how
            for at in places:
                self._say(at, how)
            return [NOWHERE] * len(made)
        found = carried(func, args, kwargs, made, lambda tensor: known.get(_view(tensor), NOWHERE))
        self._normalized(name, args, given, places)
        if activations and name == "mul":
            for at in places:
                self._say(at, SCALES)
        for at in places:
            for origin in at:
                if not any(origin in each for each in found) and not trace.live:
                    self._lost[origin.name] = name
        return found

    def _normalized(self, name: str, args: Any, given: list[torch.Tensor], places: list[Places]) -> None:
        """Note a weight that is divided by its own norms."""
        if name == "_weight_norm_interface":
            dim = (args[2] if len(args) > 2 else 0) % given[0].ndim
            shape = [size if axis == dim else 1 for axis, size in enumerate(given[0].shape)]
        elif name == "div" and len(given) == 2 and not places[1]:
            shape = [1] * (given[0].ndim - given[1].ndim) + list(given[1].shape)
        else:
            return
        numbered = [d for d, size in enumerate(shape) if size > 1]
        for origin, coordinates in places[0].items():
            if numbered and (name != "div" or origin.name in self.trace(given[1]).names):
                axes = tuple(axis for axis, at in enumerate(coordinates) if any(varies(at, d) for d in numbered))
                self._rows[origin.name] = axes

    def _say(self, places: Places, how: str) -> None:
        for origin in places:
            if how == TABLE or origin.name not in self._apart:
                self._apart[origin.name] = how

    def _why(self, name: str) -> str:
        """Return why a weight does not count as a factor."""
        if name in self._apart:
            return self._apart[name]
        if name in self._lost:
            return f"{COMPUTED} ({self._lost[name]})"
        return "multiplies no activations" if name in self._order else UNUSED

    def _places_of(self, tensor: torch.Tensor) -> Places:
        return self._places.get(_memory(tensor), {}).get(_view(tensor), NOWHERE)

    def _place(self, tensor: torch.Tensor, places: Places) -> None:
        self._places.setdefault(_memory(tensor), {})[_view(tensor)] = places
        self._alive.append(tensor.untyped_storage())


def _axes(places: Places, origin: Origin, factor: Factor, weight: torch.Tensor) -> Axes | None:
    """Return the roles of a weight's axes: inputs are those that change along dimensions that the product sums over."""
    coordinates, count = places[origin], factor.tensor.ndim
    summed = {dimension % count for dimension in factor.summed}
    taps = {dimension % count for dimension in factor.taps}
    numbered = set(range(count)) - summed - taps
    along = {axis: {d for d in range(count) if varies(at, d)} for axis, at in enumerate(coordinates)}
    if any(dims & summed and dims & numbered for dims in along.values()):
        return None
    inputs = tuple(axis for axis, dims in along.items() if dims & summed)
    outputs = tuple(axis for axis, dims in along.items() if not dims & (summed | taps))
    return Axes(tuple(weight.shape), outputs, inputs)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _view(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a key that tells a view of a piece of memory from other views."""
    return _memory(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
