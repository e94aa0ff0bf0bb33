"""The small convolutional network of the evolution paper."""

from __future__ import annotations

from torch import nn

from lottery.networks.initializers.variance_scaling import lecun_normal
from lottery.networks.models import chain, model
from lottery.networks.models.conv import image_shape


@model("cnn-8-16", source="Lange & Sprekeler 2023 (arXiv 2306.00045), MNIST network; Flax's default kernel init")
def cnn_8_16(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """5×5 convolutions with 8 and 16 channels, each pooled, then one dense layer; 11,274 parameters on 28×28.

    >>> sum(p.numel() for p in cnn_8_16((1, 28, 28), 10).parameters())
    11274
    """
    channels, height, width = image_shape(shape, least=4)
    network = chain(
        conv1=nn.Conv2d(channels, 8, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(8, 16, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(16 * (height // 4) * (width // 4), outputs),
    )
    lecun_normal(network)
    for name in ("conv1", "conv2"):
        nn.init.uniform_(network.get_submodule(name).get_parameter("bias"), 0.0, 0.05)
    return network
