"""The weights that initializers draw, with their fans: one matrix for each gate or projection."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from pruning.errors import BadValue

_DRAWN = (nn.Linear, _ConvNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class Fans:
    """How many inputs a unit of a weight sums over, and how many units an input goes to."""

    into: int
    out: int


def redraw(module: nn.Module, draw: Callable[[torch.Tensor, Fans], object]) -> None:
    """Draw every weight of linear, convolution, bilinear, recurrent and attention layers anew; biases become zero.

    The gates of a recurrent layer and the projections of an attention have the fans of one gate or projection.

    Args:
        module: changed in place.
        draw: `draw(weight, fans)` fills a tensor from torch's generator.

    Raises:
        BadValue: a layer whose weight is computed and cannot be set (spectral norm): the message names it.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, _DRAWN):
            for name, fans in _weights(layer):
                _draw(layer, name, f"{path}.{name}".lstrip("."), lambda weight, fans=fans: draw(weight, fans))
            for name, parameter in layer.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(parameter)


def _weights(layer: nn.Module) -> Iterator[tuple[str, Fans]]:
    """Yield the names of a layer's own weights, with their fans."""
    match layer:
        case _ConvTransposeNd():
            taps, groups = math.prod(layer.kernel_size), layer.groups
            yield "weight", Fans(layer.in_channels // groups * taps, layer.out_channels * taps)
        case _ConvNd():
            taps = math.prod(layer.kernel_size)
            yield "weight", Fans(layer.in_channels // layer.groups * taps, layer.out_channels * taps)
        case nn.Linear():
            yield "weight", Fans(layer.in_features, layer.out_features)
        case nn.Bilinear():
            yield "weight", Fans(layer.in1_features * layer.in2_features, layer.out_features)
        case nn.MultiheadAttention():
            for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
                weight = getattr(layer, name, None)
                if weight is not None:
                    yield name, Fans(weight.shape[1], layer.embed_dim)
        case nn.RNNBase() | nn.RNNCellBase():
            names: list[str] = getattr(layer, "_flat_weights_names", ["weight_ih", "weight_hh"])
            for name in names:
                if name.startswith("weight_"):
                    rows, columns = getattr(layer, name).shape
                    yield name, Fans(columns, rows if name.startswith("weight_hr") else layer.hidden_size)


def _draw(layer: nn.Module, name: str, full: str, draw: Callable[[torch.Tensor], object]) -> None:
    parameter = layer._parameters.get(name)
    if parameter is not None:
        draw(parameter.detach())
        return
    if parametrize.is_parametrized(layer, name):
        drawn = torch.empty_like(getattr(layer, name))
        draw(drawn)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # what cannot be set is told below
            setattr(layer, name, drawn)
        if torch.allclose(getattr(layer, name), drawn, atol=1e-6):
            return
    raise BadValue(
        f"init draws no weights for {full!r}: {type(layer).__name__} computes it from other tensors; "
        "leave init at 'model'"
    )
