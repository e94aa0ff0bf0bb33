"""The flow of a forward pass of PyTorch: a second listener beside `Following`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pruning.uses.flows.calls import Call, tensors_of
from pruning.uses.flows.flow import Flow, Meeting, Signal
from pruning.uses.following import Following
from pruning.uses.operations import Operations
from pruning.uses.products import product_of

# What makes new numbers in the shape of a tensor.
_FRESH = frozenset({"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"})
_FRESH |= {"new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "bernoulli", "normal", "uniform"}
# What leaves every element where it is.
_COPIES = frozenset({"alias", "detach", "lift_fresh", "_to_copy", "clone", "contiguous"})
_MEETINGS: dict[str, Meeting] = {"add": "sum", "sub": "sum", "rsub": "sum", "lerp": "sum"}
_MEETINGS |= {"mul": "product", "div": "product", "where": "choice", "masked_fill": "choice"}
_CHOOSING = {"where": 0, "masked_fill": 1}  # which argument only chooses
_ADDING = frozenset({"addmm", "baddbmm", "addbmm", "addmv"})
_LOOKUPS = frozenset({"embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"})
_INDEXED = frozenset({"index", "index_select", "gather", "take", "take_along_dim"})
_STATISTICS = frozenset({"amax", "amin", "max", "mean", "min", "norm", "linalg_vector_norm", "std", "std_mean", "sum"})
_STATISTICS |= {"var", "var_mean"}
# Softmax and Fourier transforms: no function of single elements, and all elements come together as in a product.
_ENDS = frozenset({"_log_softmax", "_safe_softmax", "_softmax", "argmax", "argmin", "log_softmax", "softmax"})
_ENDS |= {"_fft_c2c", "_fft_c2r", "_fft_r2c"}
# What moves elements, or mixes neighbours: by name, or by a part of the name.
_PASSING = frozenset(
    {"_reshape_alias", "_unsafe_index", "_unsafe_view", "as_strided", "cat", "col2im", "cumsum", "flip"}
)
_PASSING |= {"im2col", "index_add", "index_copy", "index_put", "masked_select", "native_dropout", "repeat", "reshape"}
_PASSING |= {"repeat_interleave", "roll", "rot90", "sort", "stack", "topk", "tril", "triu", "unsafe_chunk"}
_PASSING_PARTS = ("_pad", "norm", "pack", "pool", "sampler", "scatter", "shuffle", "split", "upsample")
# In these, gates go through functions inside the operation.
_GATED = frozenset({"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"})


class Listening(Operations):
    """Writes the flow of a forward pass that `Following` follows too."""

    def __init__(self, following: Following, inputs: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.flow = Flow()
        self.failed = ""  # why the flow is not complete
        self._following = following
        self._signals: dict[int, dict[Any, Signal]] = {}
        self._alive: list[Any] = []  # memory that is in use is never another's
        for leaf in inputs:
            self._set(leaf, self.flow.source())

    def flow_to(self, outputs: Any) -> Flow | None:
        """Return the flow up to what the network returned; None where it could not be followed."""
        for leaf in tensors_of(outputs):
            if (signal := self._signal(leaf)) is not None:
                self.flow.output(signal)
        return None if self.failed else self.flow

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what it makes of what is known."""
        kwargs = kwargs or {}
        if self.failed:
            return func(*args, **kwargs)
        given = {id(tensor): signal for tensor in tensors_of((args, kwargs)) if (signal := self._signal(tensor))}
        call = Call(func, args, kwargs, given)
        numbers = call.numbers() if given and call.pointwise else None
        result = func(*args, **kwargs)
        made = tensors_of(result)
        if not given or not made or call.name in _FRESH:
            return result
        try:
            signal = self._made(call, numbers, result)
        except Exception as error:  # the pass itself goes on: of its flow it is said that it is not known
            self.failed = f"{type(error).__name__}: {error}"
            return result
        for index, tensor in enumerate(made):
            part = index > 0 and signal.spot.kind == "passing" and signal.spot.before and not call.pointwise
            each = self.flow.passed(signal.spot.before, reduced=call.name in _STATISTICS) if part else signal
            self._set(tensor, None if each.constant else each, written=func._schema.is_mutable)
        return result

    def _made(self, call: Call, numbers: Any, result: Any) -> Signal:
        """Return the signal of an operation's results."""
        flow, name, signals, first = self.flow, call.name, call.signals, call.signal(0)
        if (product := product_of(call.func, call.args, result)) is not None:
            return self._product(call, [factor.tensor for factor in product.factors])
        if name in _LOOKUPS or name in _INDEXED:
            weights = self._following.weights_in(call.args[0])
            return flow.passed([first]) if first and not weights else flow.product(weights, signals)
        if first and (name in _COPIES or call.func.is_view) and _same(call.args[0], result):
            return first
        if call.pointwise:
            return self._pointwise(call, numbers)
        if name in _ENDS:
            return flow.product((), signals)
        if name == "copy":
            return flow.passed(signals[-1:])
        if name in _STATISTICS or name in _PASSING or call.func.is_view or any(part in name for part in _PASSING_PARTS):
            return flow.passed(signals, reduced=name in _STATISTICS)
        return flow.lost(signals)

    def _product(self, call: Call, factors: list[torch.Tensor]) -> Signal:
        weights = [self._following.weights_in(tensor) for tensor in factors]
        taken = [
            call.given[id(tensor)]
            for tensor, names in zip(factors, weights, strict=True)
            if not names and id(tensor) in call.given
        ]
        gated = call.name in _GATED
        made = self.flow.product(frozenset[str]().union(*weights), call.signals if gated else taken)
        added = call.signal(0) if call.name in _ADDING else None
        if gated:
            return self.flow.lost([made])
        return made if added is None else self.flow.elementwise("sum", [made, added], None)

    def _pointwise(self, call: Call, numbers: Any) -> Signal:
        at = _CHOOSING.get(call.name)
        chooser = call.signal(at) if at is not None else None
        choosing = [chooser] if chooser else []
        signals = [each for each in call.signals if each is not chooser]
        evaluate = None if numbers is None else lambda: call.evaluated(numbers)
        how = _MEETINGS.get(call.name, "other")
        try:
            return self.flow.elementwise(how, signals, evaluate, choosing)
        except (RuntimeError, TypeError, ValueError, IndexError):  # it does not work element by element
            return self.flow.lost([*choosing, *signals])

    def _signal(self, tensor: torch.Tensor) -> Signal | None:
        """Return what is known of a tensor; of a view that is new, that it is made of what its memory holds."""
        held = self._signals.get(_memory(tensor))
        if not held:
            return None
        key = _view(tensor)
        if key not in held:
            held[key] = self.flow.passed(list(dict.fromkeys(held.values())))
        return held[key]

    def _set(self, tensor: torch.Tensor, signal: Signal | None, written: bool = False) -> None:
        held = self._signals.setdefault(_memory(tensor), {})
        if written:  # other views of this memory hold something else now, or something more
            whole = tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
            if whole:
                held.clear()
            for key in [key for key in held if key[1] > tensor.numel()]:
                held[key] = self.flow.passed([held[key], *([signal] if signal else [])])
        held.pop(_view(tensor), None)
        if signal:
            held[_view(tensor)] = signal
        self._alive.append(tensor.untyped_storage())


def _same(given: Any, result: Any) -> bool:
    """Say whether a result has the elements of what was given where they were, and no cast made whole numbers."""
    if not isinstance(given, torch.Tensor) or not isinstance(result, torch.Tensor) or given.shape != result.shape:
        return False
    copied = _memory(given) != _memory(result)
    return (result.is_floating_point() or result.is_complex()) if copied else _view(given) == _view(result)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _view(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.storage_offset(), tensor.numel(), tuple(tensor.shape), tensor.stride(), tensor.dtype
