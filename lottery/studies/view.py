"""A search's networks and data in PyTorch, for analyses, whichever trainer trained them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lottery.data.parts import Part, Parts
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import Objective, objective_for, own
from lottery.networks.sources.source import require_torch
from lottery.search.frame.frame import Frame
from lottery.state.machine.device import choose_device
from lottery.state.tensors import float_type, load_state
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.jobs import Params

_BATCH = 1024


@dataclass(frozen=True)
class TorchView:
    """Networks and data in PyTorch.

    Attributes:
        model: the architecture; its weights are never used nor changed.
        parts: the data.
        objective: loss and metric.
        device: where to compute.
    """

    model: nn.Module
    parts: Parts
    objective: Objective
    device: torch.device

    def network(self, params: Params) -> nn.Module:
        """Return a network with these weights and buffers, in evaluation mode, on the device."""
        network = copy_module(self.model)
        load_state(network, params)
        return network.to(self.device).eval()

    def measure(self, network: nn.Module, part: Part | None) -> tuple[float, float]:
        """Return the mean loss and the mean metric over a part of the data; NaN for no part."""
        return evaluate(network, part, self.objective, self.device, _BATCH)


def torch_view(frame: Frame, asked: str, instead: str) -> TorchView:
    """Return the networks and data of a search in PyTorch.

    Args:
        frame: the frame of the search.
        asked: who needs them, with a verb, for the message: "lottery connect measures".
        instead: what to use for a JAX model, for the message.

    Raises:
        BadValue: a search on an environment, or of a JAX model.
    """
    ask = frame.ask
    if not isinstance(ask.parts, Parts):
        raise BadValue(f"{asked} networks on labelled examples, and {ask.parts.name} is an environment")
    model = require_torch(ask.source, asked, instead).build(ask.seed)
    parts = ask.parts.with_floats(float_type(model))
    device = choose_device("auto")
    loss = own(ask.loss, device) if ask.loss is not None else None
    return TorchView(model, parts, objective_for(parts.example[1], loss, ask.metric), device)
