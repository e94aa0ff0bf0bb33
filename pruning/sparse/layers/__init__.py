"""Layers with a sparse form: one file for each kind, found by itself.

A sparse form takes the place of its layer: same arguments, same outputs up to rounding, same state dict, and
`SparseWeight` children in the place of its masked weights. What is not masked is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pruning.errors import BadValue
from pruning.linear_by_use import linear_use
from pruning.registry import Registry, summary_of

Masks = Mapping[str, NDArray[np.bool_]]
Build = Callable[[nn.Module, Masks], nn.Module]

LAYERS: Registry[tuple[type[nn.Module], Build]] = Registry("sparse layer", "pruning.sparse.layers")


class NoSparseForm(BadValue):
    """A layer that has no sparse form here; it is kept dense, and the report says why."""


def sparse_layer(kind: type[nn.Module], *, source: str) -> Callable[[Build], Build]:
    """Register `build(layer, masks)`, which returns the sparse form of a layer of exactly this kind.

    `masks` are those of the layer's own weights, by attribute name. A layer whose options have no sparse form raises
    `NoSparseForm` with the reason.
    """

    def register(build: Build) -> Build:
        LAYERS.add(kind.__name__, (kind, build), summary_of(build), source)
        return build

    return register


def sparse_form(layer: nn.Module, masks: Masks) -> nn.Module:
    """Return the sparse form of a layer; raises `NoSparseForm` where there is none.

    >>> sparse_form(nn.Linear(2, 1), {"weight": np.array([[True, False]])}).weight.shape
    torch.Size([1, 2])
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(part, kind) for part in layer.modules() for kind in hooks):
        raise NoSparseForm("somebody listens to it with a hook")
    if any("forward" in vars(part) for part in layer.modules()):
        raise NoSparseForm("its forward is not that of its class")
    build = next((entry.value[1] for entry in LAYERS if type(layer) is entry.value[0]), None)
    if build is not None:
        return build(layer, masks)
    use = linear_use(layer)
    if type(layer) is nn.Module:  # what torch.fx leaves of a layer whose code it has seen through
        raise NoSparseForm("it is used by code around it, not by a layer that has a sparse form")
    if use is None:
        raise NoSparseForm(
            f"{type(layer).__name__} has no sparse form (known: {', '.join(LAYERS.names())}, and whatever else is one "
            "product with its only matrix)"
        )
    from pruning.sparse.layers.linear import SparseLinear

    return SparseLinear(layer, masks, use)
