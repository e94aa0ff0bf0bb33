"""The compacted network as a program that any batch size runs through: what `compacted` and `onnx` write."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from lottery.exports import Network, first_line
from pruning.compaction import compact
from pruning.errors import BadValue
from pruning.structures import flattened


@dataclass(frozen=True)
class Program:
    """A traced network.

    Attributes:
        exported: PyTorch's own form of it.
        arguments: the batch that it was traced with, by position.
        batch: PyTorch's description of which axes are free: the first of every argument.
        notes: what a person should know of it, a line each.
    """

    exported: torch.export.ExportedProgram
    arguments: tuple[Any, ...]
    batch: tuple[Any, ...]
    notes: tuple[str, ...]


def compacted_program(network: Network) -> Program:
    """Return the network without what no weight reaches, traced with a free batch size.

    Raises:
        BadValue: inputs that the model takes by name or packed, or a network that torch.export cannot trace.
    """
    if isinstance(network.inputs, Mapping):
        names = ", ".join(map(str, network.inputs))
        raise BadValue(f"the model takes its inputs by name ({names}); a compacted network takes them by position")
    if any("PackedSequence" in path for path in flattened(network.inputs)):
        raise BadValue("the model takes a PackedSequence, which no traced network takes; take another format")
    arguments = tuple(network.inputs) if isinstance(network.inputs, tuple | list) else (network.inputs,)
    smaller = compact(network.model, network.mask, *arguments)
    size = torch.export.Dim("batch")
    batch = tree_map_only(torch.Tensor, lambda _: {0: size}, arguments)
    with tracing("torch.export"):
        exported = torch.export.export(smaller.module, arguments, dynamic_shapes=batch)
    _forget_its_making(exported)
    notes = tuple(f"left as it was: {name or 'the model'} ({why})" for name, why in smaller.opaque.items())
    return Program(exported, arguments, batch, notes)


@contextlib.contextmanager
def tracing(what: str) -> Iterator[None]:
    """Turn whatever a tracer raises into a line that says what it was about; PyTorch's own warnings are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            # A recurrent layer lists its weights anew; the outputs are compared in the end.
            warnings.filterwarnings("ignore", message="The tensor attributes")
            # Several inputs share one batch size, as they should.
            warnings.filterwarnings("ignore", message="# The axis name")
            yield
    except Exception as error:  # tracing runs the caller's model, and anything may come of that
        raise BadValue(f"{what} cannot take this network with a free batch size ({first_line(error)})") from error


def _forget_its_making(exported: torch.export.ExportedProgram) -> None:
    """Drop the training examples and the paths of source files, which would go into the file."""
    exported.example_inputs = None
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
