"""Graph networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import LeftAlone, initializer
from pruning.starts.distributions import spread
from pruning.starts.fans import fans
from pruning.starts.layers.graphs import Graph, Toward, combined, graph_of, read_graph, spreading
from pruning.starts.weight import Array, Weight


@initializer("virgo", source="Li et al. 2023, On the Initialization of Graph Neural Networks (ICML, PMLR 202)")
def virgo(
    weight: Weight,
    rng: np.random.Generator,
    *,
    graph: Any = None,
    layers: int | None = None,
    toward: Toward = "harmonic",
    distribution: str = "uniform",
    gain: float = math.sqrt(2),
) -> Array:
    """Variance gain² / fan of the live connections, times how much the graph shrinks signal and gradient at that layer.

    Args:
        weight: what is drawn; its place says which layer of the network it is.
        rng: where chance comes from.
        graph: an `.npz` file (`read_graph` says of what), an adjacency matrix [nodes, nodes], or a `Graph`.
        layers: how many graph layers the network has; later weights are left as they are.
        toward: whose size stays the same: `forward`, `backward`, or the `harmonic` or `arithmetic` mean of both.
        distribution: `normal`, `uniform` or `truncated`.
        gain: √2 for ReLU.

    Raises:
        BadValue: no graph, no place, or no number of layers where the gradient counts.
        DataError: a graph file that cannot be read.
        LeftAlone: what is no graph layer.
    """
    if weight.kind != "linear":
        raise LeftAlone("it is no linear layer: 'virgo' draws those of a graph network")
    if graph is None:
        raise BadValue("virgo needs the graph: --set init_params.graph=FILE.npz, with `adjacency` or `edges`")
    if weight.place is None:
        raise BadValue(
            f"virgo needs to know which layer {weight} is, and its place was not found; 'unit-scaled' does not"
        )
    layer = weight.place.index
    count = layers if layers is not None else layer + 1 if weight.place.last or toward == "forward" else None
    if count is None:
        raise BadValue(
            "virgo needs the number of graph layers to keep the gradient's size: --set init_params.layers=3, or "
            "init_params.toward=forward"
        )
    if layer >= count:
        raise LeftAlone(f"it is weight {layer + 1} of a network of {count} graph layers")
    if layer == count - 1 and weight.outputs < 2 and toward != "forward":
        raise BadValue(
            f"{weight} has one output, and no softmax, whose gradient counts: take init_params.toward=forward"
        )
    factors = spreading(_read(graph), count, weight.outputs)
    forward = gain**2 / np.maximum(1, fans(weight, "in")) * factors.forward[layer]
    backward = gain**2 / np.maximum(1, fans(weight, "out")) * factors.backward[layer]
    std = np.sqrt(combined(forward, backward, toward))
    return std.astype(np.float32) * spread(distribution, rng, weight.shape)


def _read(graph: Any) -> Graph:
    if isinstance(graph, Graph):
        return graph
    return read_graph(graph) if isinstance(graph, str) else graph_of(graph)
