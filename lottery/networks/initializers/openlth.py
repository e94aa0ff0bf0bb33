"""The start of OpenLTH's networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def openlth(module: nn.Module) -> None:
    """PyTorch's own start, with the weights of linear and convolution layers Gaussian of variance 2 / fan_in."""
    for layer in module.modules():
        # OpenLTH makes its layers anew and then draws their weights: biases are those that PyTorch draws.
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if isinstance(reset, Callable):
            reset()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
