"""An architecture without its weights, and networks made from it again."""

from __future__ import annotations

import torch
from torch import nn

from pruning.copies.copying import copy_module


def skeleton_of(network: nn.Module) -> nn.Module:
    """Return the architecture alone, without numbers; parameters that are tied stay tied.

    A network with TorchScript in it keeps its numbers (see `scripted_part`).

    >>> skeleton = skeleton_of(nn.Linear(2, 1))
    >>> skeleton, skeleton.weight.device
    (Linear(in_features=2, out_features=1, bias=True), device(type='meta'))
    """
    skeleton = copy_module(network)
    if scripted_part(network) is None:
        skeleton = skeleton.to("meta")
    return _tie(skeleton, _ties(network))


def scripted_part(network: nn.Module) -> str | None:
    """Return why a network cannot be made again from its architecture, if a part of it is TorchScript; else None.

    >>> scripted_part(nn.Sequential(nn.ReLU())) is None
    True
    """
    for name, part in network.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            return f"{name or 'the model'} is TorchScript, which cannot be made again from its architecture"
    return None


def filled(skeleton: nn.Module, state: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]) -> nn.Module:
    """Return a network of this architecture that holds these tensors, in evaluation mode."""
    network, ties = copy_module(skeleton), _ties(skeleton)
    network.load_state_dict(state, strict=False, assign=True)
    _tie(network, ties)
    for path, module in network.named_modules():
        for name in list(module._buffers):
            full = f"{path}.{name}" if path else name
            if full in buffers and full not in state:
                module._buffers[name] = buffers[full].detach().clone()
    return network.eval().requires_grad_(False)


def _ties(network: nn.Module) -> dict[str, str]:
    """Return the names under which a parameter comes again, with its first name."""
    first: dict[int, str] = {}
    named = network.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in named if first.setdefault(id(p), name) != name}


def _tie(network: nn.Module, ties: dict[str, str]) -> nn.Module:
    for name, first in ties.items():
        path, _, own = name.rpartition(".")
        network.get_submodule(path)._parameters[own] = network.get_parameter(first)
    return network
