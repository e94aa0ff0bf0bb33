"""Policies for control, small enough to evolve."""

from __future__ import annotations

import math

import torch
from torch import nn

from lottery.networks.initializers.variance_scaling import lecun_normal
from lottery.networks.models import chain, model


@model("policy", source="Lange & Sprekeler 2023 (arXiv 2306.00045), gym and MinAtar networks; Flax's default init")
def policy(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two tanh layers of 64, or for images (channels last) a 3×3 convolution and 48 units; observations normalized."""
    network = _image_policy(shape, outputs) if len(shape) == 3 else _vector_policy(shape, outputs)
    lecun_normal(network)
    for name, parameter in network.named_parameters():
        if name.endswith(".bias") and not name.startswith("head."):
            nn.init.uniform_(parameter, 0.0, 0.05)
    return network


class Observations(nn.Module):
    """Standardizes observations and clips them to ±10; passes them on as they are until there are statistics.

    Whoever plays the episodes updates the buffers: `mean` and `var` of an observation's shape, and `count`.
    """

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the observations [B, *shape], normalized."""
        scaled = (observations - self.mean) / torch.sqrt(self.var + 1e-8)
        return torch.where(self.count > 0, torch.clamp(scaled, -10.0, 10.0), observations)


class ChannelsFirst(nn.Module):
    """Moves the channels of images, which environments give last, to where a convolution expects them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return [B, C, H, W] for [B, H, W, C]."""
        return images.permute(0, 3, 1, 2)


def _vector_policy(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    return chain(
        observations=Observations(shape),
        flatten=nn.Flatten(),
        fc1=nn.Linear(math.prod(shape), 64),
        tanh1=nn.Tanh(),
        fc2=nn.Linear(64, 64),
        tanh2=nn.Tanh(),
        head=nn.Linear(64, outputs),
    )


def _image_policy(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    height, width, channels = shape
    return chain(
        observations=Observations(shape),
        channels_first=ChannelsFirst(),
        conv=nn.Conv2d(channels, 16, 3, padding=1),
        relu1=nn.ReLU(),
        flatten=nn.Flatten(),
        fc=nn.Linear(16 * height * width, 48),
        relu2=nn.ReLU(),
        head=nn.Linear(48, outputs),
    )
