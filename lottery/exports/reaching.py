"""Does a forward pass read its weights where a format can mask them? Some modules reach around."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lottery.exports import TicketNetwork
from lottery.networks.objectives.objective import call
from pruning.copies.copying import copy_module
from pruning.errors import BadValue


def check_reached(network: TicketNetwork, watched: nn.Module, by_name: Mapping[str, nn.Module], how: str) -> None:
    """Raise `BadValue` for a masked tensor that the forward pass reads although the module that masks it never runs.

    Attention reads the weight of its output projection without calling that layer: no hook on the layer ever runs. Such
    a file would load, and the weight would be one that training neither changes nor masks.

    Args:
        network: the network to export.
        watched: a copy of its model, in the format's form; its hooks are left as they were.
        by_name: for each masked tensor, the module within `watched` that must run for the mask to be applied.
        how: the way in which it is masked, for the message.
    """
    ran: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.add(name))  # pyright: ignore[reportArgumentType]
        for name, module in by_name.items()
    ]
    call(watched, network.inputs)
    for hook in hooks:
        hook.remove()
    for name in by_name:
        if name not in ran and _reads(network, name):
            raise BadValue(f"{name!r} is read by its layer in a way that {how} does not see; take another format")


def _reads(network: TicketNetwork, name: str) -> bool:
    """Say whether the outputs depend on a tensor at all: an auxiliary head may be used in training only."""
    other = copy_module(network.model)
    with torch.no_grad():
        other.get_parameter(name).fill_(float("nan"))
        pairs = zip(_outputs(network.model, network.inputs), _outputs(other, network.inputs), strict=True)
        return not all(torch.equal(one, another) for one, another in pairs)


def _outputs(model: nn.Module, inputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(call(model, inputs)) if isinstance(leaf, torch.Tensor)]
