"""Exact compaction: the smaller network that a mask leaves, for inference."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import same_structure, tensors_in
from pruning.compaction.channels import Flags
from pruning.compaction.folding import fold_batch_norms
from pruning.compaction.following import follow, name_values_written_in_place
from pruning.compaction.inner import inner_modules, shell
from pruning.compaction.liveness import liveness
from pruning.compaction.observing import observe
from pruning.compaction.preparing import named_mask, prepared
from pruning.compaction.result import Compacted, LayerWidths
from pruning.compaction.rewriting import rewrite
from pruning.compaction.tracing import Traced, trace
from pruning.errors import BadValue, first_line
from pruning.mask import Mask

Kept = Mapping[torch.Tensor, Flags]


def compact(model: nn.Module, mask: Mask, /, *inputs: Any, **named: Any) -> Compacted:
    """Return a smaller network that computes, in eval mode, what the masked model does.

    Units and channels that no output depends on are gone; those that are constant have become part of biases; batch
    norms have become part of the layers before them. Exact up to rounding, for any number of examples. What decides is
    the mask: a kept weight that is 0 is a weight. For inference only: training the smaller network is not training the
    masked one (weight decay and new batch statistics would reach what is gone).

    Args:
        model: any module; it is not changed.
        mask: removed weights; a tensor that is absent is dense.
        *inputs: an example, as the model takes it; its batch size does not matter.
        **named: what of it the model takes by name.

    Raises:
        MaskMismatch: a mask that does not fit the model, or covers nothing that the forward pass uses.
        BadValue: an example that does not go through the model.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> mask = Mask({"0.weight": [[1, 1], [0, 0], [1, 0]], "2.weight": [[1, 1, 0]]})
    >>> compact(model, mask, torch.ones(1, 2)).module
    Sequential(
      (0): Linear(in_features=2, out_features=1, bias=True)
      (1): ReLU()
      (2): Linear(in_features=1, out_features=1, bias=True)
    )
    """
    masked, kept = prepared(model, mask)
    call = Call(inputs, named)
    try:
        expected = call.run(masked)
    except Exception as error:  # the model's own code may raise anything
        raise BadValue(f"the example does not go through {type(model).__name__}: {first_line(error)}") from error
    part = _compacted(masked, call, expected, kept)
    smaller = named_mask(part.module, {**kept, **part.kept}, mask.metadata)
    return Compacted(part.module.eval(), smaller, part.layers, part.opaque, part.folded)


@dataclass(frozen=True)
class _Part:
    """A module, and what was done to it. Names are the module's own."""

    module: nn.Module
    opaque: Mapping[str, str]
    kept: Kept = field(default_factory=dict)
    layers: tuple[LayerWidths, ...] = ()
    folded: Mapping[str, str] = field(default_factory=dict)

    def with_inner(self, path: str, inner: _Part) -> _Part:
        """Add what was done to a module inside."""

        def full(name: str) -> str:
            return f"{path}.{name}" if name else path

        return _Part(
            self.module,
            {**self.opaque, **{full(name): reason for name, reason in inner.opaque.items()}},
            {**self.kept, **inner.kept},
            (*self.layers, *(replace(row, name=full(row.name)) for row in inner.layers)),
            {**self.folded, **{full(norm): full(layer) for norm, layer in inner.folded.items()}},
        )


def _compacted(root: nn.Module, call: Call, expected: Any, kept: Kept) -> _Part:
    """Compact a module as a whole if it can be seen through, and what lies inside of whatever cannot be."""
    if not list(root.children()):
        # a layer alone: all that goes in and comes out of it stays
        return _Part(shell(root), {})
    traced = trace(root, call)
    part = _as_a_whole(root, traced, call, expected, kept)
    for path in list(part.opaque):
        if path and not list(part.module.get_submodule(path).children()):
            continue
        part = _inside(part, path, call, expected, kept)
    return part


def _as_a_whole(root: nn.Module, traced: Traced, call: Call, expected: Any, kept: Kept) -> _Part:
    network = traced.network
    if network is None:
        return _Part(shell(root), traced.opaque)
    try:
        observed = observe(network, call.cloned().values)
    except Exception as error:  # a trace may have taken a way that these arguments do not go
        return _Part(shell(root), {"": f"its trace does not run: {type(error).__name__}"})
    if not _same_tensors(observed.output, expected):  # an interpreter has list and dict types of its own
        return _Part(shell(root), {"": "what it computes depends on more than its trace shows"})
    name_values_written_in_place(network, observed)
    followed = follow(network, observed, kept, traced.opaque)
    rewritten = rewrite(network, observed, followed, liveness(network.graph, followed))
    folded = fold_batch_norms(network, followed, {**kept, **rewritten.kept})
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    if not _agrees(network, call, expected):
        return _Part(shell(root), {"": "its compacted form computes something else"})
    return _Part(network, {**traced.opaque, **followed.tied}, rewritten.kept, rewritten.layers, folded)


def _inside(part: _Part, path: str, call: Call, expected: Any, kept: Kept) -> _Part:
    """Compact what lies inside a module that cannot be seen through; all that goes in and comes out there stays."""
    if path:
        part.module.set_submodule(path, shell(part.module.get_submodule(path)))
    try:
        found = inner_modules(part.module, path, call)
    except BadValue as error:  # a module inside is called with what cannot be copied
        return replace(part, opaque={**part.opaque, path: str(error)})
    part = replace(part, opaque={**part.opaque, **found.refused})
    for name, seen in found.modules.items():
        before = part.module.get_submodule(name)
        inner = _compacted(before, seen.call, seen.output, kept)
        part.module.set_submodule(name, inner.module)
        if _agrees(part.module, call, expected):
            part = part.with_inner(name, inner)
        else:
            part.module.set_submodule(name, before)
            part = replace(part, opaque={**part.opaque, name: "the module around it does more with it than call it"})
    return part


def _agrees(module: nn.Module, call: Call, expected: Any) -> bool:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torch.fx prints where a traced network fails
            return _same(call.run(module), expected)
    except Exception:  # code around a compacted module may want something else of it, and raise anything
        return False


def _same(outputs: Any, expected: Any) -> bool:
    """Say whether two results have the same structure and agree as the same computation in another order does."""
    return same_structure(outputs, expected) and _same_tensors(outputs, expected)


def _same_tensors(outputs: Any, expected: Any) -> bool:
    mine, theirs = tensors_in(outputs), tensors_in(expected)
    return len(mine) == len(theirs) and all(_close(one, other) for one, other in zip(mine, theirs, strict=True))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    # Half of the digits: rounding costs a few, and an error in the network nearly all.
    tolerance = torch.finfo(one.dtype).eps ** 0.5 * float(other.nan_to_num().abs().max())
    return torch.allclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True)
