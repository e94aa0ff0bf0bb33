"""Forward through a traced network: what each operation does with channels, and which channels are constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from pruning.compaction.channels import Behaviour, Carry, Channels, Flags, Mix
from pruning.compaction.observing import Observed
from pruning.compaction.rules import Operation, rule_for


@dataclass(frozen=True)
class Followed:
    """A traced network, seen as channels.

    Attributes:
        behaviours: the behaviours of every node that is not dense.
        known: channels of every value that has any.
        tied: modules that stay as they are because a tensor of theirs is used elsewhere as well, and how.
    """

    behaviours: Mapping[fx.Node, Behaviour]
    known: Mapping[fx.Node, Channels]
    tied: Mapping[str, str]


def follow(
    network: fx.GraphModule, observed: Observed, kept: Mapping[torch.Tensor, Flags], opaque: Mapping[str, str]
) -> Followed:
    """Ask each operation's rule, from the inputs to the outputs."""
    behaviours: dict[fx.Node, Behaviour] = {}
    known: dict[fx.Node, Channels] = {}
    tied = _tied(network)
    unsteady = _overwritten(network.graph, observed)
    for node in network.graph.nodes:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        function = rule_for(node, module)
        if function is None or node in unsteady or (module is not None and str(node.target) in {*tied, *opaque}):
            continue
        found = function(Operation(node, module, observed, known, kept))
        if found is not None:
            behaviours[node] = found
        if isinstance(found, Carry | Mix):
            known[node] = found.channels
    return Followed(behaviours, known, tied)


def name_values_written_in_place(network: fx.GraphModule, observed: Observed) -> None:
    """After `x.relu_()`, let later operations read the result of `relu_` and not `x`: the values are the same."""
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    renamed: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        for value in observed.written.get(node, ()):
            latest = value
            while latest in renamed:
                latest = renamed[latest]
            whole = observed.shapes.get(node) == observed.shapes.get(value)
            if whole and value in observed.aliases.get(node, ()):
                latest.replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])
                renamed[latest] = node


def _overwritten(graph: fx.Graph, observed: Observed) -> frozenset[fx.Node]:
    """Return the values that change after they were made, and are read again: nothing is known of those.

    All values that share memory with one that is written count as one.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    found: set[fx.Node] = set()
    for node in graph.nodes:
        for value in observed.written.get(node, ()):
            family = _family(value, observed)
            before = {member for member in family if order[member] < order[node]}
            if any(order[user] > order[node] for member in before for user in member.users):
                found |= family
    return frozenset(found)


def _family(value: fx.Node, observed: Observed) -> set[fx.Node]:
    """Return all values that share memory with one."""
    family = {value}
    while True:
        groups = [{node, *shared} for node, shared in observed.aliases.items() if shared]
        more = set().union(family, *(group for group in groups if group & family))
        if more == family:
            return family
        family = more


def _tied(network: fx.GraphModule) -> dict[str, str]:
    """Return the modules of which a tensor is read more than once, with the reason that says where."""
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    counts = Counter(calls)
    owners: dict[torch.Tensor, list[str]] = {}
    for path in counts:
        for value in _tensors(network.get_submodule(path)):
            owners.setdefault(value, []).append(path)
    for node in network.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(network, str(node.target))
            if isinstance(value, torch.Tensor):
                owners.setdefault(value, []).append(str(node.target))
    reasons: dict[str, str] = {}
    for paths in owners.values():
        for path in paths:
            others = [other for other in paths if other != path]
            if path in counts and others:
                reasons[path] = f"it shares a tensor with {others[0]!r}"
            elif counts[path] > 1:
                reasons[path] = f"it is called {counts[path]} times"
    return reasons


def _tensors(module: nn.Module) -> set[torch.Tensor]:
    return {*module.parameters(), *module.buffers()}


def _attribute(network: nn.Module, path: str) -> object:
    owner, _, name = path.rpartition(".")
    return getattr(network.get_submodule(owner), name)
