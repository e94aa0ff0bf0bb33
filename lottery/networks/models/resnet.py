"""The 20-layer residual network for small images."""

from __future__ import annotations

import torch
from torch import nn

from lottery.networks.initializers.variance_scaling import glorot_normal
from lottery.networks.models import model
from lottery.networks.models.conv import image_shape


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut (a 1×1 convolution where the shape changes)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, H, W] to [N, filters, H / stride, W / stride]."""
        out = self.conv1(x)
        out = self.bn2(self.conv2(torch.relu(self.bn1(out))))
        return torch.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels, global average pooling, one dense layer."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, width = [], 16
        for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
            for stride in (first_stride, 1, 1):
                blocks.append(Block(width, filters, stride))
                width = filters
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, H, W] to [N, outputs]."""
        out = self.blocks(torch.relu(self.bn(self.conv(x))))
        return self.fc(out.mean(dim=(2, 3)))


@model(
    "resnet-20", source="He et al. 2016, section 4.2; Frankle & Carbin 2019, 'Resnet-18' of figure 2 (Gaussian Glorot)"
)
def resnet_20(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Nine residual blocks with 16, 32 and 64 channels and batch norm; 0.27M weights on CIFAR-10.

    >>> network = resnet_20((3, 32, 32), 10)
    >>> sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    270896
    """
    channels, _, _ = image_shape(shape, least=4)
    network = ResNet(channels, outputs)
    glorot_normal(network)
    return network
