"""Backward through a traced network: which channels matter, and which are there after compaction.

Two sets for each value. **Needed** channels are those on which an output depends: a layer needs a column if a row
that is needed and not constant keeps a weight there, and no bias can stand for it. **Present** channels are those
that the smaller network has: the needed ones, and those that operations hold together (both inputs of a sum have the
same channels, flatten takes channels with all their positions). A channel that is present and not needed costs a row
of zeros, and nothing before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import fx

from pruning.compaction.channels import Carry, Flags, Link, Mix, Peek
from pruning.compaction.following import Followed


@dataclass(frozen=True)
class Liveness:
    """Channels of every value that has any, before compaction.

    Attributes:
        needed: on which channels an output depends.
        present: which channels the smaller network has; never none, since not every layer takes a width of 0.
    """

    needed: Mapping[fx.Node, Flags]
    present: Mapping[fx.Node, Flags]


def liveness(graph: fx.Graph, followed: Followed) -> Liveness:
    """Find which channels matter and which stay."""
    needed = _needed(graph, followed)
    return Liveness(needed, _present(graph, followed, needed))


def aligned(followed: Followed, mix: Mix) -> bool:
    """Say whether the columns of a layer are the channels of its source."""
    return mix.source in followed.known and followed.known[mix.source].axis == mix.axis


def _needed(graph: fx.Graph, followed: Followed) -> dict[fx.Node, Flags]:
    needed = {node: np.zeros(channels.width, bool) for node, channels in followed.known.items()}
    for node in reversed(graph.nodes):
        behaviour = followed.behaviours.get(node)
        if isinstance(behaviour, Peek):
            continue
        whole = set(node.all_input_nodes)
        if isinstance(behaviour, Mix) and aligned(followed, behaviour):
            needed[behaviour.source] |= behaviour.read(needed[node])
            whole.discard(behaviour.source)
        elif isinstance(behaviour, Carry):
            for link in behaviour.links:
                if link.source in needed:
                    needed[link.source] |= link.read(needed[node], len(needed[link.source]))
                whole.discard(link.source)
        for source in whole & needed.keys():
            needed[source][:] = True
    return needed


def _present(graph: fx.Graph, followed: Followed, needed: Mapping[fx.Node, Flags]) -> dict[fx.Node, Flags]:
    present = {node: flags.copy() for node, flags in needed.items()}
    fixed = _fixed(graph, followed)
    _settle(graph, followed, present, fixed)
    for flags in present.values():
        if not flags.any():
            flags[0] = True
    _settle(graph, followed, present, fixed)
    return present


def _settle(
    graph: fx.Graph, followed: Followed, present: Mapping[fx.Node, Flags], fixed: Mapping[fx.Node, Flags]
) -> None:
    """Add channels until every operation is fed what it has to be fed, and gives what comes of it."""
    carries = [(node, b) for node in graph.nodes if isinstance(b := followed.behaviours.get(node), Carry)]
    count = -1
    while count != (count := sum(int(flags.sum()) for flags in present.values())):
        for node, carry in (*carries, *reversed(carries)):
            for link in carry.links:
                _settle_link(link, present, present[node], fixed, fixed[node])


def _settle_link(
    link: Link, present: Mapping[fx.Node, Flags], outputs: Flags, fixed: Mapping[fx.Node, Flags], fixed_out: Flags
) -> None:
    width, source = len(outputs), present.get(link.source)
    wide = int(link.inner.max()) + 1 if source is None else len(source)
    inputs = link.demanded(outputs, wide)
    outputs |= link.given(inputs, width)
    # Where a source cannot give less, what comes out is taken as it is, unless another source would have to give more.
    always = fixed.get(link.source, np.ones(wide, bool))
    follows = ~always[link.inner] | fixed_out[link.outer]
    there = np.ones(wide, bool) if source is None else source
    outputs[link.outer[follows & there[link.inner]]] = True
    if source is not None:
        source |= link.demanded(outputs, wide)


def _fixed(graph: fx.Graph, followed: Followed) -> dict[fx.Node, Flags]:
    """Return which channels can never be removed: those that come from values without channels, such as inputs."""
    fixed: dict[fx.Node, Flags] = {}
    for node in graph.nodes:
        behaviour = followed.behaviours.get(node)
        if isinstance(behaviour, Mix):
            fixed[node] = np.zeros(behaviour.channels.width, bool)
        elif isinstance(behaviour, Carry):
            fixed[node] = np.ones(behaviour.channels.width, bool)
            for link in behaviour.links:
                if link.source in fixed:
                    fixed[node][link.outer[~fixed[link.source][link.inner]]] = False
    return fixed
