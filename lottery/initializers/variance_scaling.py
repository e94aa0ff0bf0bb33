"""Gaussian initializers that scale the variance by a layer's fans; biases start at zero."""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lottery.initializers import initializer

# A standard normal cut off at two standard deviations has this standard deviation.
_TRUNCATED_STD = 0.87962566103423978


@initializer("model", source="the model's own definition")
def model(module: nn.Module) -> None:
    """The model's own initialization, untouched."""


@initializer("glorot-normal", source="Glorot & Bengio 2010; Frankle & Carbin 2019, figure 2 (Gaussian Glorot)")
def glorot_normal(module: nn.Module) -> None:
    """Gaussian with variance 2 / (fan_in + fan_out), biases zero."""
    for layer in _layers(module):
        nn.init.xavier_normal_(layer.weight)
        _zero_bias(layer)


@initializer("kaiming-normal", source="He et al. 2015 (arXiv 1502.01852)")
def kaiming_normal(module: nn.Module) -> None:
    """Gaussian with variance 2 / fan_in for ReLU networks, biases zero."""
    for layer in _layers(module):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        _zero_bias(layer)


@initializer("lecun-normal", source="LeCun et al. 1998; Flax's default kernel init (truncated at two deviations)")
def lecun_normal(module: nn.Module) -> None:
    """Truncated Gaussian with variance 1 / fan_in, biases zero."""
    for layer in _layers(module):
        fan_in = layer.weight[0].numel()
        std = math.sqrt(1 / fan_in) / _TRUNCATED_STD
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        _zero_bias(layer)


def _layers(module: nn.Module) -> list[nn.Linear | _ConvNd]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | _ConvNd)]


def _zero_bias(layer: nn.Linear | _ConvNd) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
