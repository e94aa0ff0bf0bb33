"""Deep networks without normalization: they train only from a start that keeps signals alive."""

from __future__ import annotations

import math

from torch import nn

from lottery.networks.initializers.variance_scaling import glorot_normal, kaiming_normal
from lottery.networks.models import chain, model
from lottery.networks.models.conv import image_shape

DEPTH = 20


@model("deep-mlp", source="Lee et al. 2020, section 5: deep tanh networks (arXiv 1906.06307); Gaussian Glorot")
def deep_mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Twenty tanh layers of 128 units, no normalization, no shortcuts.

    >>> sum(isinstance(layer, nn.Linear) for layer in deep_mlp((64,), 10))
    21
    """
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    inputs = math.prod(shape)
    for index in range(1, DEPTH + 1):
        layers |= {f"fc{index}": nn.Linear(inputs, 128), f"tanh{index}": nn.Tanh()}
        inputs = 128
    network = chain(**layers, head=nn.Linear(inputs, outputs))
    glorot_normal(network)
    return network


@model("plain-cnn", source="Xiao et al. 2018: deep networks without normalization (arXiv 1806.05393); He et al. 2015")
def plain_cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Twenty 3×3 ReLU convolutions of 16 channels, no normalization, no shortcuts, mean over positions.

    The first and the eleventh halve images that are larger than 8×8 then: zeros around small ones dampen signals.

    >>> sum(isinstance(layer, nn.Conv2d) for layer in plain_cnn((1, 8, 8), 10))
    20
    """
    channels, *sides = image_shape(shape, least=4)
    side = min(sides)
    layers: dict[str, nn.Module] = {}
    for index in range(1, DEPTH + 1):
        stride = 2 if index in (1, DEPTH // 2 + 1) and side > 8 else 1
        side = -(-side // stride)
        layers |= {f"conv{index}": nn.Conv2d(channels, 16, 3, stride, padding=1), f"relu{index}": nn.ReLU()}
        channels = 16
    pool = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    network = chain(**layers, **pool, head=nn.Linear(channels, outputs))
    kaiming_normal(network)
    return network
