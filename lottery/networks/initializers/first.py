"""The initializers that draw from PyTorch's generator where a network is in PyTorch, as they did in the first runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from lottery.networks.initializers.openlth import openlth
from lottery.networks.initializers.variance_scaling import glorot_normal, kaiming_normal, lecun_normal

FIRST: Mapping[str, Callable[[nn.Module], None]] = {
    "glorot-normal": glorot_normal,
    "kaiming-normal": kaiming_normal,
    "lecun-normal": lecun_normal,
    "openlth": openlth,
}
"""By the name of the scheme: a function that redraws a module's weights in place, dense."""
