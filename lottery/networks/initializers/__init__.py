"""Initializers: how fresh weights are drawn. One small function each, found by itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pruning.registry import Registry

Initialize = Callable[[nn.Module], None]

INITIALIZERS: Registry[Initialize] = Registry("init", "lottery.networks.initializers", listed="initializers")


def initializer(name: str, *, source: str) -> Callable[[Initialize], Initialize]:
    """Register a function that redraws a module's weights in place from torch's generator."""
    return INITIALIZERS.registering(name, source)
