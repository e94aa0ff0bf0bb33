"""VGG-16 for small images, with batch norm and one dense layer."""

from __future__ import annotations

from torch import nn

from lottery.networks.initializers.variance_scaling import kaiming_normal
from lottery.networks.models import chain, model
from lottery.networks.models.conv import image_shape

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@model("vgg-16", source="Simonyan & Zisserman 2015; the CIFAR form of Frankle et al. 2020 (arXiv 1912.05671)")
def vgg_16(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Thirteen 3×3 convolutions with batch norm, average pooling, one dense layer; 14.7M weights on CIFAR-10.

    >>> network = vgg_16((3, 32, 32), 10)
    >>> sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    14715584
    """
    channels, _, _ = image_shape(shape, least=16)
    layers: dict[str, nn.Module] = {}
    for stage, (filters, count) in enumerate(_STAGES, start=1):
        for index in range(1, count + 1):
            layers[f"conv{stage}_{index}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            layers[f"bn{stage}_{index}"] = nn.BatchNorm2d(filters)
            layers[f"relu{stage}_{index}"] = nn.ReLU()
            channels = filters
        if stage < len(_STAGES):
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
    network = chain(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(512, outputs))
    kaiming_normal(network)
    return network
