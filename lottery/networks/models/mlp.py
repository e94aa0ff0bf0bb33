"""Fully connected networks."""

from __future__ import annotations

import math

from torch import nn

from lottery.networks.initializers.variance_scaling import glorot_normal
from lottery.networks.models import chain, model


@model("mlp", source="the toolkit's default; Gaussian Glorot as in Frankle & Carbin 2019")
def mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two hidden ReLU layers sized for the data: 64-32 for 64 inputs, 300-100 for 784."""
    inputs = math.prod(shape)
    first = min(max(inputs, 64), 300)
    return _fully_connected(inputs, first, max(32, first // 3), outputs)


@model("lenet-300-100", source="LeCun et al. 1998; Frankle & Carbin 2019, figure 2 (Gaussian Glorot)")
def lenet_300_100(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Hidden ReLU layers of 300 and 100 units; 266,200 weights on 28×28 images and ten classes.

    >>> sum(p.numel() for p in lenet_300_100((1, 28, 28), 10).parameters() if p.ndim > 1)
    266200
    """
    return _fully_connected(math.prod(shape), 300, 100, outputs)


def _fully_connected(inputs: int, first: int, second: int, outputs: int) -> nn.Module:
    network = chain(
        flatten=nn.Flatten(),
        fc1=nn.Linear(inputs, first),
        relu1=nn.ReLU(),
        fc2=nn.Linear(first, second),
        relu2=nn.ReLU(),
        fc3=nn.Linear(second, outputs),
    )
    glorot_normal(network)
    return network
