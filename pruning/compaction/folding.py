"""Batch norm in eval mode becomes part of the linear or convolution layer before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx, nn

from pruning.compaction.channels import Carry, Flags
from pruning.compaction.following import Followed
from pruning.compaction.rules.layers import Convolution
from pruning.compaction.rules.normalization import BatchNorm, scale_and_shift


def fold_batch_norms(
    network: fx.GraphModule, followed: Followed, kept: Mapping[torch.Tensor, Flags]
) -> Mapping[str, str]:
    """Fold every batch norm that alone reads a layer into this layer, in place; return its name and the layer's.

    W' = scale · W and b' = scale · b + shift, made in float64 (Jacob et al. 2018, section 3.2). A batch norm whose own
    parameters are masked stays.
    """
    folded: dict[str, str] = {}
    for node in list(network.graph.nodes):
        layer_node = _layer_before(network, node, followed)
        if layer_node is None:
            continue
        norm, layer = (network.get_submodule(str(each.target)) for each in (node, layer_node))
        assert isinstance(norm, BatchNorm)
        assert isinstance(layer, nn.Linear | Convolution)
        if any(value in kept for value in norm.parameters()):
            continue
        _fold(layer, norm)
        node.replace_all_uses_with(layer_node)
        network.graph.erase_node(node)
        folded[str(node.target)] = str(layer_node.target)
    return folded


def _layer_before(network: fx.GraphModule, node: fx.Node, followed: Followed) -> fx.Node | None:
    """Return the layer that a batch norm alone reads; None where there is none."""
    if not isinstance(followed.behaviours.get(node), Carry) or node.op != "call_module":
        return None
    if not isinstance(network.get_submodule(str(node.target)), BatchNorm):
        return None
    source = node.all_input_nodes[0]
    if source.op != "call_module" or source not in followed.behaviours or set(source.users) != {node}:
        return None
    return source if isinstance(network.get_submodule(str(source.target)), nn.Linear | Convolution) else None


def _fold(layer: nn.Linear | Convolution, norm: BatchNorm) -> None:
    """Change a layer that compaction made, and nobody else holds."""
    scale, shift = (torch.from_numpy(numbers) for numbers in scale_and_shift(norm))
    weight = layer.weight.detach().to("cpu", torch.float64)
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().to("cpu", torch.float64)
    with torch.no_grad():
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        layer.weight.copy_(torch.where(weight == 0, 0.0, scaled))
    shifted = (bias * scale + shift).to(layer.weight.device, layer.weight.dtype)
    layer.bias = nn.Parameter(shifted, layer.weight.requires_grad)
