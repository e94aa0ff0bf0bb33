"""Conv-2, Conv-4 and Conv-6: VGG-like networks for small colour images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lottery.networks.initializers.variance_scaling import glorot_normal
from lottery.networks.models import chain, model
from pruning.errors import DataError

_SOURCE = "Frankle & Carbin 2019, figure 2 (Gaussian Glorot)"


@model("conv-2", source=_SOURCE)
def conv_2(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two 3×3 convolutions (64), one pooling, fully connected 256-256; 4.3M weights on CIFAR-10.

    >>> sum(p.numel() for p in conv_2((3, 32, 32), 10).parameters() if p.ndim > 1)
    4300992
    """
    return _conv(shape, outputs, [64])


@model("conv-4", source=_SOURCE)
def conv_4(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Four 3×3 convolutions (64, 128), two poolings, fully connected 256-256; 2.4M weights on CIFAR-10.

    >>> sum(p.numel() for p in conv_4((3, 32, 32), 10).parameters() if p.ndim > 1)
    2425024
    """
    return _conv(shape, outputs, [64, 128])


@model("conv-6", source=_SOURCE)
def conv_6(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Six 3×3 convolutions (64, 128, 256), three poolings, fully connected 256-256; 2.3M weights on CIFAR-10.

    >>> sum(p.numel() for p in conv_6((3, 32, 32), 10).parameters() if p.ndim > 1)
    2261184
    """
    return _conv(shape, outputs, [64, 128, 256])


def _conv(shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    channels, height, width = image_shape(shape, least=2 ** len(widths))
    layers: dict[str, nn.Module] = {}
    for block, filters in enumerate(widths):
        for index in (2 * block + 1, 2 * block + 2):
            layers[f"conv{index}"] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"relu{index}"] = nn.ReLU()
            channels = filters
        layers[f"pool{block + 1}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    features = channels * height * width
    network = chain(
        **layers,
        flatten=nn.Flatten(),
        fc1=nn.Linear(features, 256),
        relu_fc1=nn.ReLU(),
        fc2=nn.Linear(256, 256),
        relu_fc2=nn.ReLU(),
        fc3=nn.Linear(256, outputs),
    )
    glorot_normal(network)
    return network


def image_shape(shape: tuple[int, ...], least: int) -> tuple[int, int, int]:
    """Return (channels, height, width); raises `DataError` where the inputs are not images that large.

    >>> image_shape((3, 32, 32), least=4)
    (3, 32, 32)
    """
    if len(shape) != 3 or min(shape[1:]) < least:
        raise DataError(
            f"this model takes images [channels, height, width] of {least}×{least} pixels or more; "
            f"the data's inputs have shape {list(shape)}"
        )
    return shape[0], shape[1], shape[2]
