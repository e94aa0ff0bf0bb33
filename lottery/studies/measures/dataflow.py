"""Which layer feeds which: found by following one forward pass, not by guessing from names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from lottery.networks.objectives.objective import call
from pruning.copies.copying import copy_module
from pruning.effective import chain_positions
from pruning.errors import BadValue

_MIXING = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear, _ConvTransposeNd)


def layer_chain(model: nn.Module, inputs: Any) -> dict[str, nn.Module]:
    """Return the linear and convolution layers of a network whose layers follow one another, from input to output.

    Each layer's output is cut from the graph and made a variable of its own; what a layer's input depends on is then
    exactly the layers that feed it. Its values are positive random ones, so that no unit is hidden by a ReLU that is
    off. Unit j of a layer must be input j of the next (or, after a convolution, one block of a linear layer's inputs,
    as `Flatten` lays channels out), and reach no other one: a mask can then be followed unit by unit.

    Args:
        model: the network; it is not changed.
        inputs: a few examples, a floating-point tensor.

    Returns:
        Layers by the name of their weight, in the order of the data.

    Raises:
        BadValue: not a chain (the message names the tensor where it branches), a layer of another kind, one that is
            used twice or never, something between two layers that mixes or reorders units, or inputs that are no
            floating-point tensor.

    >>> list(layer_chain(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), torch.ones(2, 3)))
    ['0.weight', '2.weight']
    """
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        raise BadValue("not known to be a chain of layers: the data flow is followed from a floating-point input only")
    network = copy_module(model).cpu().eval()
    layers = _layers(network)
    fed: dict[str, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def before(name: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if name in fed:
            raise BadValue(f"not a chain of layers: {name!r} is used twice in one forward pass")
        fed[name] = next(iter((*arguments, *named.values()))).clone()

    def after(name: str, output: Any) -> torch.Tensor:
        made[name] = torch.rand(output.shape, generator=generator, dtype=output.dtype).requires_grad_()
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
    feeders = {name: _feeders(value, sources) for name, value in fed.items()}
    chain = _ordered(layers, feeders, _feeders(outputs, sources))
    positions = chain_positions({name: tuple(layer.get_parameter("weight").shape) for name, layer in chain.items()})
    for (first, second), copies in zip(itertools.pairwise(chain), positions[1:], strict=True):
        axes = _unit_axis(made[first], chain[first]), _unit_axis(fed[second], chain[second])
        if _mixes(made[first], fed[second], axes, copies, generator):
            raise BadValue(
                f"not a chain of layers: units of {first!r} are mixed or reordered before {second!r} "
                "(effective sparsity needs unit j of a layer to be input j of the next)"
            )
    return chain


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


def _unit_axis(values: torch.Tensor, layer: nn.Module) -> int:
    """Return the axis of a layer's units, or of its inputs: channels before positions, features last."""
    return values.ndim + 1 - layer.get_parameter("weight").ndim


def _mixes(
    source: torch.Tensor, value: torch.Tensor, axes: tuple[int, int], copies: int, generator: torch.Generator
) -> bool:
    """Whether any input of a layer depends on another unit of the layer before than its own.

    Two different numbers differ in a bit. So for every bit, inputs of the units that have it must have no gradient at
    units that lack it, and the other way round: two passes a bit look at every pair.
    """
    of, to = torch.arange(source.shape[axes[0]]), torch.arange(value.shape[axes[1]]) // copies
    others = [axis for axis in range(source.ndim) if axis != axes[0]]
    for bit, side in itertools.product(range((len(of) - 1).bit_length()), (0, 1)):
        # random, so that what depends on a unit in several places does not cancel
        weights = torch.rand(value.shape, generator=generator, dtype=value.dtype).movedim(axes[1], -1)
        asked = (weights * ((to >> bit & 1) == side)).movedim(-1, axes[1])
        (gradient,) = torch.autograd.grad(value, source, asked, retain_graph=True)
        reached = (gradient != 0).sum(others) > 0
        if (reached & ((of >> bit & 1) != side)).any():
            return True
    return False
