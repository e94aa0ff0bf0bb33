"""The sparse form of a layer: that of its class, or a product with its only matrix, whatever its class."""

from __future__ import annotations

from torch import nn

from pruning.sparse.layers import LAYERS, Masks, NoSparseForm
from pruning.sparse.layers.linear import SparseLinear
from pruning.uses.linear import linear_use


def sparse_form(layer: nn.Module, masks: Masks) -> nn.Module:
    """Return the sparse form of a layer; raises `NoSparseForm` where there is none.

    >>> import numpy as np
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
    return SparseLinear(layer, masks, use)
