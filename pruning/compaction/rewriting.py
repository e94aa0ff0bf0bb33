"""The smaller network: every operation made as narrow as the channels that are present."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from pruning.compaction.channels import Carry, Change, Cut, Flags, Link, Mix, Peek
from pruning.compaction.following import Followed
from pruning.compaction.liveness import Liveness, aligned
from pruning.compaction.observing import Observed
from pruning.compaction.result import LayerWidths

# A column that is read for nothing costs multiplications; taking the others out costs a copy of each. Moving a number
# through memory takes about as long as this many multiplications.
_WORTH_A_COPY = 64


class Select(nn.Module):
    """Takes channels out of a value, where what gives it cannot give fewer."""

    channels: torch.Tensor

    def __init__(self, axis: int, channels: torch.Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("channels", channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[…, width, …] to […, kept, …]."""
        return x.index_select(self.axis, self.channels)

    def extra_repr(self) -> str:
        """Say which axis, and how many channels."""
        return f"axis={self.axis}, channels={len(self.channels)}"


@dataclass(frozen=True)
class Rewritten:
    """What was changed.

    Attributes:
        layers: widths of the layers.
        kept: the mask of the new parameters.
    """

    layers: tuple[LayerWidths, ...]
    kept: Mapping[torch.Tensor, Flags]


@dataclass
class _Rewriting:
    network: fx.GraphModule
    observed: Observed
    followed: Followed
    alive: Liveness
    device: torch.device
    layers: list[LayerWidths] = field(default_factory=list)
    kept: dict[torch.Tensor, Flags] = field(default_factory=dict)
    selections: dict[tuple[fx.Node, int, bytes], fx.Node] = field(default_factory=dict)


def rewrite(network: fx.GraphModule, observed: Observed, followed: Followed, alive: Liveness) -> Rewritten:
    """Make a traced network narrower, in place; the modules that it shares with others stay as they are."""
    tensors = [*network.parameters(), *network.buffers()]
    work = _Rewriting(network, observed, followed, alive, tensors[0].device if tensors else torch.device("cpu"))
    for node in list(network.graph.nodes):
        behaviour = followed.behaviours.get(node)
        if isinstance(behaviour, Mix):
            _narrow_mix(work, node, behaviour)
        elif isinstance(behaviour, Carry):
            _narrow_carry(work, node, behaviour)
        elif isinstance(behaviour, Peek) and behaviour.width is not None:
            _write_out(node, behaviour.width)
    return Rewritten(tuple(work.layers), work.kept)


def _narrow_mix(work: _Rewriting, node: fx.Node, mix: Mix) -> None:
    outputs, right = work.alive.present[node], work.alive.needed[node]
    columns = mix.connected.shape[1]
    follows = mix.source not in work.followed.known or aligned(work.followed, mix)
    there = work.alive.present[mix.source] if aligned(work.followed, mix) else np.ones(columns, bool)
    used = mix.read(right)
    if not used.any():
        used[there.argmax()] = True
    saved = (int(there.sum()) - int(used.sum())) * int(outputs.sum()) * mix.taps
    if follows and saved > _WORTH_A_COPY * int(used.sum()):
        node.replace_input_with(mix.source, _select(work, node, mix.source, mix.axis, there, used))
        there = used
    _apply(work, node, mix.narrow(Cut(outputs, right, there)))


def _narrow_carry(work: _Rewriting, node: fx.Node, carry: Carry) -> None:
    outputs, right = work.alive.present[node], work.alive.needed[node]
    change = carry.narrow(Cut(outputs, right, outputs))
    _apply(work, node, change)
    for link in carry.links:
        there, demanded = _fed(work, link, outputs)
        if not np.array_equal(there, demanded):
            node.replace_input_with(link.source, _select(work, node, link.source, link.axis, there, demanded))


def _fed(work: _Rewriting, link: Link, outputs: Flags) -> tuple[Flags, Flags]:
    """Return which channels a source gives, and which of them an operation needs."""
    width = work.observed.shapes[link.source][link.axis]
    there = work.alive.present.get(link.source, np.ones(width, bool))
    return there, link.demanded(outputs, width)


def _select(work: _Rewriting, before: fx.Node, source: fx.Node, axis: int, there: Flags, chosen: Flags) -> fx.Node:
    """Return a node that gives the chosen channels of those that are there."""
    key = (source, axis, chosen.tobytes())
    if key not in work.selections:
        names = (f"select_{number}" for number in itertools.count())
        name = next(name for name in names if not hasattr(work.network, name))
        positions = torch.from_numpy(np.flatnonzero(chosen[there])).to(work.device)
        work.network.add_submodule(name, Select(axis, positions).eval())
        with work.network.graph.inserting_before(before):
            work.selections[key] = work.network.graph.call_module(name, (source,))
    return work.selections[key]


def _apply(work: _Rewriting, node: fx.Node, change: Change) -> None:
    if change.arguments is not None:
        node.args = change.arguments  # pyright: ignore[reportAttributeAccessIssue]
    if node.op != "call_module":
        return
    path = str(node.target)
    before = work.network.get_submodule(path)
    if change.module is not None:
        work.network.set_submodule(path, change.module)
        work.kept.update({change.module.get_parameter(name): kept for name, kept in change.kept.items()})
    widths = _widths(before)
    if widths is not None:
        left = widths if change.module is None else _widths(change.module) or widths
        work.layers.append(LayerWidths(path, *widths, *left))


def _widths(layer: nn.Module) -> tuple[int, int] | None:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.in_channels, layer.out_channels
    return None


def _write_out(node: fx.Node, width: int) -> None:
    """Put the number of channels, which must not change, in the place of the question for it."""
    for user in list(node.users):
        user.args = map_arg(user.args, lambda value: width if value is node else value)
        user.kwargs = map_arg(user.kwargs, lambda value: width if value is node else value)
    node.graph.erase_node(node)
