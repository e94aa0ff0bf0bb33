"""One run of the example through a traced network: shapes, shared memory, and writes in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Observed:
    """What one run showed.

    Attributes:
        output: the output of the network.
        shapes: the shapes of every value that is a tensor.
        aliases: for each value, those of its inputs whose memory it shares.
        written: for each node, those of its inputs that it writes in place.
    """

    output: Any
    shapes: Mapping[fx.Node, Shape]
    aliases: Mapping[fx.Node, frozenset[fx.Node]]
    written: Mapping[fx.Node, frozenset[fx.Node]]


def observe(network: fx.GraphModule, inputs: tuple[Any, ...]) -> Observed:
    """Run a traced network once on its inputs, without gradients, and note what happens to its values."""
    notes = _Notes()
    with torch.no_grad():
        output = _Observer(network, notes).run(*inputs)
    return Observed(output, notes.shapes, notes.aliases, notes.written)


@dataclass
class _Notes:
    shapes: dict[fx.Node, Shape] = field(default_factory=dict)
    aliases: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    written: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)


class _Observer(fx.Interpreter):
    def __init__(self, network: fx.GraphModule, notes: _Notes) -> None:
        super().__init__(network)
        self.notes = notes

    def run_node(self, n: fx.Node) -> Any:
        inputs = {node: self.env[node] for node in n.all_input_nodes}
        tensors = {node: value for node, value in inputs.items() if isinstance(value, torch.Tensor)}
        before = {node: value._version for node, value in tensors.items()}
        result = super().run_node(n)
        self.notes.written[n] = frozenset(node for node, value in tensors.items() if value._version != before[node])
        if isinstance(result, torch.Tensor):
            self.notes.shapes[n] = tuple(result.shape)
            memory = result.untyped_storage().data_ptr()
            shared = [node for node, value in tensors.items() if value.untyped_storage().data_ptr() == memory]
            self.notes.aliases[n] = frozenset(shared)
        return result
