"""What runs where nothing is trained: the masked network, compacted, with sparse layers wherever they win.

    dense network, mask, example ─▶ Recipe;      dense network of the same architecture, recipe ─▶ module

A recipe is made once; modules are made from it again whenever the weights have changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.compaction import compact
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing import relative_error, tolerance
from pruning.sparse.graphed import Graphed
from pruning.sparse.replacing import Layer, put_layers, replace_layers
from pruning.sparse.spread import Spread
from pruning.sparse.timing import duel, fastest
from pruning.structures import same_structure, tensors_in


@dataclass(frozen=True)
class Recipe:
    """How to make what runs out of a masked dense network.

    Attributes:
        way: `dense` (as it is), `compacted`, or `sparse` (compacted, with sparse layers).
        itself: whether the network that trains runs, because a forward pass changes more than its outputs.
        graph: whether it runs as one CUDA graph.
        backends: of each sparse tensor, by its name in the network.
        layers: what was chosen for each masked tensor that compaction left, and why.
        contiguous: whether sparse layers hand over contiguous outputs.
        opaque: parts that compaction left alone, with the reason.
        dense_seconds: of the masked dense network; None where nothing was measured.
        sparse_seconds: of what runs; None where nothing was measured.
        dense_spread: of the masked dense network, measured pair by pair with its rival; None where nothing was.
        rival_spread: of what runs, or, where that is the dense network, of the fastest other way.
    """

    way: str
    itself: bool
    graph: bool
    backends: Mapping[str, str]
    layers: list[Layer]
    contiguous: bool
    opaque: Mapping[str, str]
    dense_seconds: float | None
    sparse_seconds: float | None
    dense_spread: Spread | None = None
    rival_spread: Spread | None = None


def run_itself(reason: str) -> Recipe:
    """Return the recipe of a network that can only be run as it is, for this reason."""
    return Recipe("dense", True, False, {}, [], False, {"": reason}, None, None)


def make(recipe: Recipe, dense: nn.Module, mask: Mask, example: Sequence[Any]) -> nn.Module:
    """Return what runs, in evaluation mode, made of a masked dense network that may be used up."""
    network = dense
    if recipe.way != "dense":
        smaller = compact(dense, mask, *example)
        network = smaller.module
        if recipe.way == "sparse":
            network = put_layers(network, smaller.mask, recipe.backends, recipe.contiguous)
            # what backends make of their plans is made now, so that `torch.compile` need not see through it
            with torch.no_grad():
                network.eval()(*example)
    network.eval().requires_grad_(False)
    return Graphed(network) if recipe.graph else network


def choose_recipe(dense: nn.Module, mask: Mask, example: Sequence[Any], choosing: Choosing) -> Recipe:
    """Return the fastest way to run a masked dense network, in evaluation mode, on an example.

    Dense is always a candidate. What gives other numbers than the masked dense network is none, and a warning says so.
    """
    smaller = compact(dense, mask, *example)
    replaced = replace_layers(compact(dense, mask, *example).module, smaller.mask, example, choosing, training=False)
    layers = replaced.layers
    backends = {layer.name: layer.backend for layer in layers if layer.choice.backends}
    flat = {layer.name: layer.backend for layer in layers if layer.choice.backends and len(layer.shape) == 2}
    ways: dict[str, tuple[str, dict[str, str], nn.Module]] = {
        "dense": ("dense", {}, dense),
        "compacted": ("compacted", {}, smaller.module),
        "sparse": ("sparse", backends, replaced.network.eval().requires_grad_(False)),
    }
    if flat and flat != backends:
        # Convolutions that hand over another layout may cost more around them than they save.
        again = compact(dense, mask, *example)
        ways["sparse, not the convolutions"] = (
            "sparse",
            flat,
            put_layers(again.module, again.mask, flat, replaced.contiguous),
        )
    if not backends:
        del ways["sparse"]
    device = _device(example)
    if device.type == "cuda":
        ways |= {f"{name}, as one CUDA graph": (way, chosen, Graphed(net)) for name, (way, chosen, net) in ways.items()}
    ways = {name: way for name, way in ways.items() if name == "dense" or _same(name, way[2], dense, example)}
    times: dict[str, float] = {}
    spreads: tuple[Spread, Spread] | None = None
    if choosing.backend is not None or choosing.by == "model":
        winner = next(name for name in ("sparse", "compacted", "dense") if name in ways)
    else:
        with torch.no_grad():
            runs = {name: (lambda network=way[2]: network(*example)) for name, way in ways.items()}
            winner, times = fastest(runs, "dense", device, 2 * choosing.seconds)
            if winner != "dense":  # in doubt dense: on a busy machine one measurement may be far off
                winner, again = fastest({n: runs[n] for n in ("dense", winner)}, "dense", device, 2 * choosing.seconds)
                times |= again
            rival = winner if winner != "dense" else _fastest_other(times)
            if rival is not None:
                spreads = duel(runs["dense"], runs[rival], device, 2 * choosing.seconds)
    way, chosen, _ = ways[winner]
    opaque = {} if way == "dense" else smaller.opaque
    graph = isinstance(ways[winner][2], Graphed)
    return Recipe(
        way=way,
        itself=False,
        graph=graph,
        backends=chosen,
        layers=layers,
        contiguous=replaced.contiguous,
        opaque=dict(opaque),
        dense_seconds=times.get("dense") if spreads is None else spreads[0].median,
        sparse_seconds=times.get(winner) if spreads is None else spreads[winner != "dense"].median,
        dense_spread=spreads[0] if spreads else None,
        rival_spread=spreads[1] if spreads else None,
    )


def _fastest_other(times: Mapping[str, float]) -> str | None:
    return min((name for name in times if name != "dense"), key=times.__getitem__, default=None)


def _same(name: str, network: nn.Module, dense: nn.Module, example: Sequence[Any]) -> bool:
    with torch.no_grad():
        wanted_outputs = dense(*example)
        try:
            found_outputs = network(*example)
        except (RuntimeError, TypeError) as error:
            if not isinstance(network, Graphed):
                raise
            # what waits for the device in the middle cannot be recorded
            reason = str(error).splitlines()[0]
            warnings.warn(f"{name}: not recorded as a CUDA graph ({reason})", RuntimeWarning, stacklevel=3)
            return False
        if not same_structure(found_outputs, wanted_outputs):
            warnings.warn(f"{name} returns another structure than the dense network; it is not used", RuntimeWarning, 3)
            return False
        for wanted, found in zip(tensors_in(wanted_outputs), tensors_in(found_outputs), strict=True):
            if not wanted.is_floating_point():
                continue
            # rounding adds up over the layers
            if not (gap := relative_error(found, wanted)) <= 10 * tolerance(wanted):
                warnings.warn(
                    f"{name} differs from the dense network by {gap:.1e} of its largest output; it is not used",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return False
    return True


def _device(example: Sequence[Any]) -> torch.device:
    tensors = tensors_in(example)
    return tensors[0].device if tensors else torch.device("cpu")
