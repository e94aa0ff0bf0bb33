"""Norms of what weights are multiplied by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lottery.objective import call
from lottery.probes import Look, probe
from lottery.probes.modes import without_noise
from pruning.errors import BadValue


@probe("input_norms", source="Sun et al. 2024, equation 1 (arXiv 2306.11695)")
def input_norms(look: Look) -> dict[str, torch.Tensor]:
    """‖x‖₂ of what each weight of a linear or convolution layer is multiplied by, over a batch and all positions.

    A linear layer's weight [i, j] sees input j of every example (and of every token); a convolution's sees the inputs
    that lie under its place of the kernel, padding included. One forward pass. A layer that runs more than once adds
    up. In the mode in which the network trains, without noise.

    Raises:
        BadValue: a weight of another kind of layer, or of a layer whose `forward` did not run (a projection inside
            attention).
    """
    layers = {name: _layers(look.model, name) for name in look.mask}
    seen: dict[str, list[_Inputs]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(_collector(layer, seen[name]))
        for name, sharing in layers.items()
        for layer in sharing
    ]
    with torch.no_grad():
        call(without_noise(look.model), look.examples[0])
    for hook in hooks:
        hook.remove()
    return {name: _norms(name, inputs) for name, inputs in seen.items()}


# A layer and the squares of what one call gave it, summed over examples.
_Inputs = tuple[nn.Linear | _ConvNd, torch.Tensor]


def _layers(model: nn.Module, name: str) -> list[nn.Linear | _ConvNd]:
    """Return the layers that have a parameter for their weight: several where it is shared."""
    parameter = model.get_parameter(name)
    candidates = [module for module in model.modules() if isinstance(module, nn.Linear | _ConvNd)]
    found = [module for module in candidates if module.weight is parameter]
    if not found:
        owner = type(model.get_submodule(name.rpartition(".")[0])).__name__
        raise _unseen(name, f"{name!r} belongs to a {owner}")
    return found


def _collector(layer: nn.Linear | _ConvNd, seen: list[_Inputs]) -> Callable[..., None]:
    """Return a hook that keeps what a layer is called with."""

    def collect(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        squares = inputs[0].detach().double().square()
        if isinstance(layer, nn.Linear):
            squares = squares.reshape(-1, squares.shape[-1])
        elif squares.dim() < layer.weight.dim():  # one example without an axis for examples
            squares = squares[None]
        seen.append((layer, squares.sum(0, keepdim=True)))

    return collect


def _norms(name: str, seen: list[_Inputs]) -> torch.Tensor:
    """Return the norms in the shape of the weight.

    What a layer returns is linear in its weight, so that the derivative of the sum of its outputs on squared inputs
    is the sum of squares that each weight is multiplied by: with any stride, padding, dilation and grouping.
    """
    if not seen:
        raise _unseen(name, f"the layer of {name!r} is not called as a module")
    return torch.stack([_slope(layer, squares) for layer, squares in seen]).sum(0).sqrt()


def _slope(layer: nn.Linear | _ConvNd, squares: torch.Tensor) -> torch.Tensor:
    exact = copy.deepcopy(layer).double()
    exact.weight.requires_grad_(True)
    with torch.enable_grad():
        return torch.autograd.grad(exact(squares).sum(), exact.weight)[0]


def _unseen(name: str, why: str) -> BadValue:
    return BadValue(
        f"input norms exist for linear and convolution layers only, and {why}; name it in `skip`, or use magnitude"
    )
