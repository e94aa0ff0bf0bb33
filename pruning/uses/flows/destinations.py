"""Where the results of weights go: through which function, into which sum, out of whose results they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pruning.uses.flows.flow import Flow, Signal, Spot
from pruning.uses.uses import Uses


def with_destinations(uses: Uses, flow: Flow | None) -> Uses:
    """Return uses with what a complete flow shows of each weight; as they are where either is not known.

    >>> flow = Flow()
    >>> first = flow.product({"first"}, [flow.source()])
    >>> both = flow.elementwise("sum", [first, flow.product({"second"}, [first])], None)
    >>> flow.output(both)
    >>> found = with_destinations(Uses(), flow)
    >>> dict(found.activations), found.feeds["second"], found.in_degrees["second"]
    ({'first': 'linear', 'second': 'linear'}, ('first',), 2)
    """
    if flow is None or uses.reason:
        return uses
    goes = _uses_of(flow)
    functions = _functions(flow, goes)
    ends = ("product", "unknown")
    goes = {spot: [(by, to) for by, to in goes[spot] if functions[to] or to.kind in ends] for spot in flow.spots}
    degrees, fed = _degrees(flow, goes), _fed(flow)
    activations: dict[str, set[str | None]] = {}
    in_degrees: dict[str, set[int]] = {}
    feeds: dict[str, dict[str, None]] = {}
    for spot in flow.spots:
        for name in spot.names:
            activations.setdefault(name, set()).update(functions[spot])
            in_degrees.setdefault(name, set()).update(degrees[spot])
            feeds.setdefault(name, {}).update(dict.fromkeys(fed[spot]))
    one = {name: next(iter(found)) for name, found in activations.items() if len(found) == 1}
    return replace(
        uses,
        activations={name: found for name, found in one.items() if found is not None},
        feeds={name: tuple(found) for name, found in feeds.items()},
        in_degrees={name: max(found) for name, found in in_degrees.items() if found},
    )


Goes = Mapping[Spot, list[tuple[Signal, Spot]]]


def _uses_of(flow: Flow) -> dict[Spot, list[tuple[Signal, Spot]]]:
    goes: dict[Spot, list[tuple[Signal, Spot]]] = {spot: [] for spot in flow.spots}
    for spot in flow.spots:
        for signal in spot.before:
            goes[signal.spot].append((signal, spot))
    return goes


def _functions(flow: Flow, goes: Goes) -> dict[Spot, frozenset[str | None]]:
    """Return, for each spot, the functions that its numbers go through first; None for one without a name.

    A statistic that only normalizes leads nowhere, and neither does what is computed and not used.
    """
    found: dict[Spot, frozenset[str | None]] = {}
    for spot in reversed(flow.spots):
        names: set[str | None] = set()
        for signal, to in goes[spot]:
            name = signal.name
            if to.kind in ("passing", "sum"):
                if found[to]:
                    names |= found[to] if name == "linear" else {name}
            else:
                names.add(None if to.kind == "unknown" and name == "linear" else name)
        found[spot] = frozenset(names)
    return found


def _fed(flow: Flow) -> dict[Spot, dict[str, None]]:
    """Return, for each spot, the weights whose results it is made of, in their order."""
    fed: dict[Spot, dict[str, None]] = {}
    for spot in flow.spots:
        fed[spot] = {name: None for each in spot.before for name in (sorted(each.spot.names) or fed[each.spot])}
    return fed


def _degrees(flow: Flow, goes: Goes) -> dict[Spot, frozenset[int]]:
    """Return, for each spot, how many edges meet where its numbers go.

    A sum that only goes into another sum is a part of that; one that goes elsewhere too is a vertex of its own, and
    its way into the other sum is an edge.
    """
    own: dict[Spot, int] = {}
    for spot in flow.spots:
        # Parts of one value that are put together again are one edge (a rotated query, a shuffle).
        edges: dict[frozenset[Spot], int] = {}
        for each in spot.before:
            alone = each.straight and len(goes[each.spot]) == 1
            edges[each.spot.roots or frozenset({each.spot})] = own[each.spot] if alone else 1
        one = spot.kind == "passing" and len(edges) == 1
        own[spot] = sum(edges.values()) if spot.kind == "sum" else next(iter(edges.values())) if one else 1
    found: dict[Spot, frozenset[int]] = {}
    for spot in reversed(flow.spots):
        ways = goes[spot]
        plain = all(by.straight and to.kind == "passing" for by, to in ways)
        if len(ways) == 1 and ways[0][0].straight and ways[0][1].kind != "product":
            to = ways[0][1]
            found[spot] = found[to] if to.kind != "unknown" else frozenset()
        elif len(ways) > 1 and plain and spot.kind != "sum":
            found[spot] = frozenset[int]().union(*(found[to] for _, to in ways))
        else:
            found[spot] = frozenset({own[spot]}) if ways else frozenset()
    return found
