"""Gaussian initializers that scale the variance by a layer's fans; biases start at zero."""

from __future__ import annotations

import math

import torch
from torch import nn

from lottery.networks.initializers.fans import Fans, redraw

# A standard normal cut off at two standard deviations has this standard deviation.
_TRUNCATED_STD = 0.87962566103423978


def glorot_normal(module: nn.Module) -> None:
    """Gaussian with variance 2 / (fan_in + fan_out), biases zero.

    >>> layer = nn.Linear(200, 600)
    >>> glorot_normal(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.count_nonzero().item()
    (0.05, 0)
    """
    redraw(module, lambda weight, fans: weight.normal_(0, math.sqrt(2.0 / (fans.into + fans.out))))


def kaiming_normal(module: nn.Module) -> None:
    """Gaussian with variance 2 / fan_in for ReLU networks, biases zero.

    >>> layer = nn.Linear(200, 400)
    >>> kaiming_normal(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.count_nonzero().item()
    (0.1, 0)
    """
    redraw(module, lambda weight, fans: weight.normal_(0, math.sqrt(2.0) / math.sqrt(fans.into)))


def lecun_normal(module: nn.Module) -> None:
    """Truncated Gaussian with variance 1 / fan_in, biases zero.

    >>> layer = nn.Linear(100, 800)
    >>> lecun_normal(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.count_nonzero().item()
    (0.1, 0)
    """
    redraw(module, _truncated)


def _truncated(weight: torch.Tensor, fans: Fans) -> None:
    std = math.sqrt(1 / fans.into) / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
