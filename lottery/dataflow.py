"""Which layer feeds which: found by following one forward pass, not by guessing from names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from lottery.objective import call
from pruning.errors import BadValue

_MIXING = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear, _ConvTransposeNd)


def layer_chain(model: nn.Module, inputs: Any) -> dict[str, nn.Module]:
    """Return the linear and convolution layers of a network whose layers follow one another, from input to output.

    Each layer's output is cut from the graph and made a variable of its own; what a layer's input depends on is then
    exactly the layers that feed it.

    Args:
        model: the network; it is not changed.
        inputs: a few examples, a floating-point tensor.

    Returns:
        Layers by the name of their weight, in the order of the data.

    Raises:
        BadValue: not a chain (the message names the tensor where it branches), a layer of another kind, one that is
            used twice or never, or inputs that are no floating-point tensor.

    >>> list(layer_chain(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), torch.ones(2, 3)))
    ['0.weight', '2.weight']
    """
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        raise BadValue("not known to be a chain of layers: the data flow is followed from a floating-point input only")
    network = copy.deepcopy(model).cpu().eval()
    layers = _layers(network)
    fed: dict[str, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}

    def before(name: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if name in fed:
            raise BadValue(f"not a chain of layers: {name!r} is used twice in one forward pass")
        fed[name] = next(iter((*arguments, *named.values()))).clone()

    def after(name: str, output: Any) -> torch.Tensor:
        made[name] = output.detach().requires_grad_()
        return made[name].clone()  # a variable itself refuses activations in place

    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, a, named, name=name: before(name, a, named), with_kwargs=True)
        layer.register_forward_hook(lambda _, __, output, name=name: after(name, output))
    with torch.enable_grad():
        start = inputs.detach().cpu().clone().requires_grad_()
        outputs = call(network, start.clone())
    unused = [name for name in layers if name not in fed]
    if unused:
        raise BadValue(f"not a chain of layers: {unused[0]!r} takes no part in the forward pass")
    sources = {"": start, **made}
    return _ordered(layers, {name: _feeders(value, sources) for name, value in fed.items()}, _feeders(outputs, sources))


def _ordered(
    layers: Mapping[str, nn.Module], feeders: Mapping[str, list[str]], last: list[str]
) -> dict[str, nn.Module]:
    """Return the layers in order; raises `BadValue` where one of them, or the output, is fed by several."""
    for name, found in [*feeders.items(), ("the output", last)]:
        if len(found) != 1:
            those = " and ".join(repr(one) if one else "the input" for one in found) or "nothing"
            raise BadValue(
                f"not a chain of layers: {name!r} is fed by {those} "
                "(effective sparsity is exact for layers that follow one another only)"
            )
    order, at = [], last[0]
    while at:
        order.insert(0, at)
        at = feeders[at][0]
    aside = [name for name in layers if name not in order]
    if aside:
        raise BadValue(f"not a chain of layers: no output depends on {aside[0]!r}")
    return {name: layers[name] for name in order}


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    owners: dict[int, str] = {}
    for path, module in network.named_modules():
        if isinstance(module, _MIXING):
            first = next(iter(dict(module.named_parameters())), "")
            raise BadValue(
                f"not a chain of linear and convolution layers: {f'{path}.{first}'.lstrip('.')!r} belongs to "
                f"{type(module).__name__}"
            )
        if not isinstance(module, nn.Linear | _ConvNd):
            continue
        name = f"{path}.weight" if path else "weight"
        if isinstance(module, _ConvNd) and module.groups > 1:
            raise BadValue(f"not a chain of layers: {name!r} is a convolution in {module.groups} groups")
        if id(module.weight) in owners:
            raise BadValue(f"not a chain of layers: {name!r} is tied to {owners[id(module.weight)]!r}")
        owners[id(module.weight)] = name
        found[name] = module
    if not found:
        raise BadValue(f"{type(network).__name__} has no linear or convolution layer")
    return found


def _feeders(values: Any, sources: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the sources that the values depend on."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor) and value.requires_grad]
    if not tensors:
        return []
    total = torch.stack([value.sum() for value in tensors]).sum()
    gradients = torch.autograd.grad(total, list(sources.values()), retain_graph=True, allow_unused=True)
    return [name for name, gradient in zip(sources, gradients, strict=True) if gradient is not None]
