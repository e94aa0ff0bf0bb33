"""Named models: one small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pruning.registry import Registry

Build = Callable[[tuple[int, ...], int], nn.Module]

MODELS: Registry[Build] = Registry("model", "lottery.networks.models", listed="models")


def model(name: str, *, source: str) -> Callable[[Build], Build]:
    """Register `build(input_shape, outputs)`, which makes a module from torch's generator.

    Args:
        name: the name that users type.
        source: the paper that defines the architecture and its initialization.
    """
    return MODELS.registering(name, source)


def chain(**layers: nn.Module) -> nn.Sequential:
    """Return a sequential module whose layers have names, so that masks read well.

    >>> list(dict(chain(flatten=nn.Flatten(), fc1=nn.Linear(2, 1)).named_parameters()))
    ['fc1.weight', 'fc1.bias']
    """
    sequence = nn.Sequential()
    for name, layer in layers.items():
        sequence.add_module(name, layer)
    return sequence
