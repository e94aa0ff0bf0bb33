"""Variances of graph networks: how a graph spreads a signal, layer by layer, forward and backward."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, DataError, first_line, unknown

if TYPE_CHECKING:
    from scipy import sparse

Toward = Literal["forward", "backward", "harmonic", "arithmetic"]
"""Whose size a start keeps: the signal's, the gradient's, or the harmonic or arithmetic mean of the two variances."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph whose nodes exchange messages.

    Attributes:
        propagation: Â, a sparse matrix [nodes, nodes]: row v says with which weights v adds up what others send.
        features: [nodes], the mean feature of each node.
    """

    propagation: sparse.csr_array
    features: Floats


def graph_of(adjacency: object, features: NDArray[np.floating] | None = None) -> Graph:
    """Return the graph of an adjacency matrix: Â = D^(-1/2) (A + I) D^(-1/2), as in a graph convolution network.

    Args:
        adjacency: [nodes, nodes], dense or a SciPy sparse matrix; entries are edge weights. Nodes without an edge to
            themselves get one.
        features: [nodes] or [nodes, features]; 1 everywhere, if not given.

    Raises:
        BadValue: a matrix that is not square, a negative edge, or features of another number of nodes.

    >>> graph_of(np.array([[0, 1], [1, 0]])).propagation.toarray().round(9).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    from scipy import sparse

    shape = np.shape(cast(Any, adjacency))
    if len(shape) != 2 or shape[0] != shape[1]:
        raise BadValue(f"a graph's adjacency has shape {shape}: expected as many rows as columns, one a node")
    matrix = sparse.csr_array(cast(Any, adjacency), dtype=np.float64)
    if matrix.nnz and not matrix.data.min() >= 0:
        raise BadValue("a graph's adjacency has a negative entry (or one that is no number): expected edge weights ≥ 0")
    nodes = shape[0]
    matrix = matrix + sparse.diags_array(np.where(matrix.diagonal() == 0, 1.0, 0.0))
    scale = sparse.diags_array(1 / np.sqrt(matrix.sum(axis=1)))
    mean = np.ones(nodes) if features is None else np.asarray(features, np.float64).reshape(len(features), -1).mean(1)
    if mean.shape != (nodes,):
        raise BadValue(f"features of {len(mean)} nodes for a graph of {nodes}")
    return Graph(sparse.csr_array(scale @ matrix @ scale), mean)


def read_graph(path: str | Path) -> Graph:
    """Return the graph of an `.npz` file: what `scipy.sparse.save_npz` writes, or `adjacency` or `edges`, `features`.

    Args:
        path: a file with `adjacency` [nodes, nodes], or `edges` [2, edges] of node numbers (source, target), and
            optionally `features` [nodes, features]; or a sparse matrix as SciPy saves it.

    Raises:
        DataError: a file that is not there, cannot be read, or holds none of these.
        BadValue: as for `graph_of`.
    """
    from scipy import sparse

    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        saved_by_scipy = sparse.load_npz(path) if "format" in arrays else None
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"graph {str(path)!r} cannot be read: {first_line(error)}") from error
    features = arrays.get("features")
    if saved_by_scipy is not None:
        return graph_of(saved_by_scipy, features)
    if "adjacency" in arrays:
        return graph_of(arrays["adjacency"], features)
    if "edges" not in arrays:
        raise DataError(
            f"graph {str(path)!r} holds {', '.join(arrays) or 'nothing'}: expected `adjacency` [nodes, nodes], "
            "`edges` [2, edges], or what scipy.sparse.save_npz writes"
        )
    edges = arrays["edges"]
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu" or (edges.size and edges.min() < 0):
        raise DataError(f"graph {str(path)!r}: `edges` is {edges.dtype} {edges.shape}, expected numbers [2, edges]")
    nodes = len(features) if features is not None else int(edges.max(initial=-1)) + 1
    if edges.size and edges.max() >= nodes:
        raise DataError(f"graph {str(path)!r}: an edge names node {int(edges.max())} of {nodes}")
    source, target = edges
    return graph_of(sparse.coo_array((np.ones(len(source)), (target, source)), shape=(nodes, nodes)), features)


@dataclass(frozen=True, eq=False)
class Spreading:
    """By how much a graph changes the mean square of a signal and of its gradient, [layers].

    Attributes:
        forward: layer l's variance is 2 / fan_in times this: s_{l-1} / s_l, with s_l = Σ_v ((Â^l x)_v)²; 1 for the
            first.
        backward: layer l's variance is 2 / fan_out times this: s_{k-1} / s_k for x = 1, k layers before the last; for
            the last one ½ N / s_1 C / (C - 1), with N nodes and C outputs: a softmax's gradient.
    """

    forward: Floats
    backward: Floats


def spreading(graph: Graph, layers: int, outputs: int) -> Spreading:
    """Return how a graph changes the signal of a network of some layers.

    Args:
        graph: what the messages go along.
        layers: how many graph layers the network has.
        outputs: how many outputs the last one has (classes); the gradient needs two at least.

    Raises:
        BadValue: fewer than one layer, or a signal that the graph cancels.

    >>> alone = spreading(graph_of(np.zeros((3, 3))), layers=3, outputs=2)
    >>> alone.forward.tolist(), alone.backward.tolist()
    ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    """
    if layers < 1:
        raise BadValue(f"a graph network of {layers} layers: expected 1 or more")
    signal = _squares(graph.propagation, graph.features, layers)
    gradient = _squares(graph.propagation, np.ones_like(graph.features), layers)
    if not signal.all():
        raise BadValue("the graph cancels the nodes' mean features: start without features, which stand for 1 each")
    # One output has no softmax; what reads it as such fails where it asks for the gradient.
    classes = outputs / (outputs - 1) if outputs > 1 else math.nan
    last = classes * len(graph.features) / gradient[0] / 2
    return Spreading(
        np.concatenate([[1.0], signal[:-1] / signal[1:]]),
        np.concatenate([[last], gradient[:-1] / gradient[1:]])[::-1],
    )


def combined(forward: Floats, backward: Floats, toward: Toward) -> Floats:
    """Return the variance between the one that keeps the signal's size and the one that keeps the gradient's.

    Raises:
        UnknownName: another way than those of `Toward`.

    >>> combined(np.array([1.0]), np.array([3.0]), "harmonic").tolist()
    [1.5]
    """
    if toward not in get_args(Toward):
        raise unknown("way to choose the variance", toward, get_args(Toward))
    if toward in ("forward", "backward"):
        return forward if toward == "forward" else backward
    return 2 / (1 / forward + 1 / backward) if toward == "harmonic" else (forward + backward) / 2


def virgo_variances(graph: Graph, widths: Sequence[int], toward: Toward = "harmonic") -> Floats:
    """Return the variance of the weights of each layer of a dense graph network with ReLU, [layers].

    Args:
        graph: what the messages go along.
        widths: of the features, of each hidden layer, and of the outputs: [layers + 1].
        toward: whose size stays the same.

    Raises:
        BadValue: fewer than two widths, or fewer than two outputs where the gradient counts.

    Source: Li et al. 2023, On the initialization of graph neural networks (Virgo), ICML.

    >>> virgo_variances(graph_of(np.zeros((4, 4))), [8, 16, 16, 2], "forward").tolist()
    [0.25, 0.125, 0.125]
    """
    if len(widths) < 2:
        raise BadValue(f"widths {list(widths)}: expected those of the features, the hidden layers and the outputs")
    factors = spreading(graph, len(widths) - 1, widths[-1])
    into, out = np.array(widths[:-1], float), np.array(widths[1:], float)
    found = combined(2 / into * factors.forward, 2 / out * factors.backward, toward)
    if np.isnan(found).any():
        raise BadValue("one output has no softmax, whose gradient the last layer's variance keeps: take toward=forward")
    return found


def _squares(propagation: sparse.csr_array, signal: Floats, steps: int) -> Floats:
    squares = []
    for _ in range(steps):
        signal = propagation @ signal
        squares.append(float(signal @ signal))
    return np.array(squares)
