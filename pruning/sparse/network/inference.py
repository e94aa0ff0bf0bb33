"""What runs where nothing is trained: the masked network, compacted, with sparse layers wherever they win.

    dense network, mask, example ─▶ InferenceRecipe;      dense network of the same architecture, recipe ─▶ module

A recipe is made once; modules are made from it again whenever the weights have changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.users_code import one_line
from pruning.compaction import Compacted, compact
from pruning.copies.copying import copy_module
from pruning.errors import DeviceError, UnknownName
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.comparing import Wanted
from pruning.sparse.choosing.spread import Spread
from pruning.sparse.choosing.timing import duel, fastest
from pruning.sparse.network.graphed import Graphed
from pruning.sparse.network.replacing import ChosenLayer, Replaced, left_dense, put_layers, replace_layers

DENSE, COMPACTED, SPARSE = "dense", "compacted", "sparse"


@dataclass(frozen=True)
class InferenceRecipe:
    """How to turn a masked dense network into the network that runs.

    Attributes:
        way: `dense` (as it is), `compacted`, or `sparse` (compacted, with sparse layers).
        itself: whether the training network itself runs, not a copy of it: its forward pass has side effects.
        graph: whether it runs as one CUDA graph.
        backends: the backends of each sparse tensor, by its name in the network.
        layers: what was chosen for each masked tensor that compaction left, and why.
        contiguous: whether sparse layers hand over contiguous outputs.
        opaque: parts that compaction left alone, with the reason.
        refused: ways that do not compute what the masked dense network computes, with the reason; none of them runs.
        dense_seconds: the time of the masked dense network; None where nothing was measured.
        sparse_seconds: the time of the network that runs; None where nothing was measured.
        dense_spread: of the masked dense network, measured pair by pair with its rival; None where nothing was.
        rival_spread: of the network that runs, or, where that is the dense network, of the fastest other way.
    """

    way: str
    itself: bool
    graph: bool
    backends: Mapping[str, str]
    layers: list[ChosenLayer]
    contiguous: bool
    opaque: Mapping[str, str]
    dense_seconds: float | None
    sparse_seconds: float | None
    dense_spread: Spread | None = None
    rival_spread: Spread | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def compacts(self) -> bool:
        """Whether compaction comes before sparse layers."""
        return COMPACTED not in self.refused


def run_itself(mask: Mask, reason: str) -> InferenceRecipe:
    """Return the recipe of a network that can only be run as it is, for this reason.

    >>> recipe = run_itself(Mask({"weight": [[1, 0]]}), "it does not run without gradients")
    >>> recipe.way, recipe.itself, recipe.layers[0].choice.reason
    ('dense', True, 'it does not run without gradients')
    """
    return InferenceRecipe(DENSE, True, False, {}, left_dense(mask, reason), False, {"": reason}, None, None)


def make(recipe: InferenceRecipe, dense: nn.Module, mask: Mask, call: Call) -> nn.Module:
    """Return the network that runs, in evaluation mode, made from a masked dense network that may be changed."""
    network = dense
    if recipe.way != DENSE:
        if recipe.compacts:
            smaller = compact(dense, mask, *call.args, **call.kwargs)
            network, mask = smaller.module, smaller.mask
        if recipe.way == SPARSE:
            network = put_layers(network, mask, recipe.backends, recipe.contiguous)
            # what backends make of their plans is made now, so that `torch.compile` need not see through it
            call.run(network.eval())
    network.eval().requires_grad_(False)
    return Graphed(network) if recipe.graph else network


@dataclass(frozen=True)
class _Way:
    """A candidate: how it is made, and the network."""

    way: str
    backends: Mapping[str, str]
    network: nn.Module


def choose_recipe(dense: nn.Module, mask: Mask, call: Call, choosing: Choosing) -> InferenceRecipe:
    """Return the fastest way to run a masked dense network, in evaluation mode, on an example.

    Dense is always a candidate. What computes anything else than the masked dense network, or fails, is none.

    Raises:
        BadValue: outputs that nothing can be compared with.
        UnknownName: a backend asked for that no product here knows.
        DeviceError: a backend asked for that does not run on this device with this type of numbers.

    >>> mask, choosing = Mask({"weight": [[1, 0]]}), Choosing(backend="csr", cache=None)
    >>> found = choose_recipe(mask.apply(nn.Linear(2, 1)).eval(), mask, Call((torch.ones(1, 2),)), choosing)
    >>> found.way, found.backends
    ('sparse', {'weight': 'csr'})
    """
    wanted, refused = Wanted.of(dense, call), dict[str, str]()
    ways = {DENSE: _Way(DENSE, {}, dense)}
    base = _compacted(dense, mask, call, wanted)
    if isinstance(base, str):
        refused[COMPACTED] = base
        base = Compacted(dense, mask, (), {}, {})
    else:
        ways[COMPACTED] = _Way(COMPACTED, {}, base.module)
    replaced = _replaced(base, call, choosing)
    if isinstance(replaced, str):
        refused[SPARSE] = replaced
        replaced = Replaced(dense, left_dense(base.mask, replaced), False)
    for name, backends in _chosen(replaced.layers).items():
        network = replaced.network.eval().requires_grad_(False)
        if name != SPARSE:
            network = put_layers(copy_module(base.module), base.mask, backends, replaced.contiguous)
        refused |= {name: reason} if (reason := wanted.difference(network)) else {}
        ways |= {} if reason else {name: _Way(SPARSE, backends, network)}
    if call.device.type == "cuda":
        graphs = {f"{name}, as one CUDA graph": _Way(w.way, w.backends, Graphed(w.network)) for name, w in ways.items()}
        # what waits for the device in the middle cannot be recorded
        different = {name: wanted.difference(way.network) for name, way in graphs.items()}
        ways |= {name: way for name, way in graphs.items() if not different[name]}
        refused |= {name: reason for name, reason in different.items() if reason}
    return _fastest(ways, base.opaque, replaced, refused, call, choosing)


def _compacted(dense: nn.Module, mask: Mask, call: Call, wanted: Wanted) -> Compacted | str:
    """Return the compacted network, or why it is not used."""
    try:
        found = compact(dense, mask, *call.args, **call.kwargs)
    except Exception as error:  # it runs the network's own code in ways that nobody thought of
        return f"compaction fails: {one_line(error)}"
    return wanted.difference(found.module) or found


def _replaced(base: Compacted, call: Call, choosing: Choosing) -> Replaced | str:
    """Return the network with sparse layers, or why it is not used."""
    try:
        return replace_layers(copy_module(base.module), base.mask, call, choosing, training=False)
    except (UnknownName, DeviceError):  # of the backend that was asked for
        raise
    except Exception as error:  # code around a sparse layer may want something else of it
        return f"it does not run with sparse layers: {one_line(error)}"


def _chosen(layers: list[ChosenLayer]) -> dict[str, dict[str, str]]:
    """Return the backends of the ways with sparse layers: all that won, and without the convolutions among them.

    Convolutions that hand over another layout may cost more around them than they save.
    """
    backends = {layer.name: layer.backend for layer in layers if layer.choice.backends}
    flat = {layer.name: layer.backend for layer in layers if layer.choice.backends and len(layer.shape) == 2}
    found = {SPARSE: backends, "sparse, not the convolutions": flat if flat != backends else {}}
    return {name: chosen for name, chosen in found.items() if chosen}


def _fastest(
    ways: Mapping[str, _Way],
    opaque: Mapping[str, str],
    replaced: Replaced,
    refused: Mapping[str, str],
    call: Call,
    choosing: Choosing,
) -> InferenceRecipe:
    times: dict[str, float] = {}
    spreads: tuple[Spread, Spread] | None = None
    if choosing.backend is not None or choosing.by == "model":
        winner = next(name for name in (SPARSE, COMPACTED, DENSE) if name in ways)
    else:
        with torch.no_grad():
            runs = {name: (lambda way=way: way.network(*call.args, **call.kwargs)) for name, way in ways.items()}
            winner, times = fastest(runs, DENSE, call.device, 2 * choosing.seconds)
            if winner != DENSE:  # in doubt dense: on a busy machine one measurement may be far off
                pair = {name: runs[name] for name in (DENSE, winner)}
                winner, again = fastest(pair, DENSE, call.device, 2 * choosing.seconds)
                times |= again
            rival = winner if winner != DENSE else _fastest_other(times)
            if rival is not None:
                spreads = duel(runs[DENSE], runs[rival], call.device, 2 * choosing.seconds)
    chosen = ways[winner]
    return InferenceRecipe(
        way=chosen.way,
        itself=False,
        graph=isinstance(chosen.network, Graphed),
        backends=chosen.backends,
        layers=replaced.layers,
        contiguous=replaced.contiguous,
        opaque={} if chosen.way == DENSE else dict(opaque),
        dense_seconds=times.get(DENSE) if spreads is None else spreads[0].median,
        sparse_seconds=times.get(winner) if spreads is None else spreads[winner != DENSE].median,
        dense_spread=spreads[0] if spreads else None,
        rival_spread=spreads[1] if spreads else None,
        refused=refused,
    )


def _fastest_other(times: Mapping[str, float]) -> str | None:
    return min((name for name in times if name != DENSE), key=times.__getitem__, default=None)
