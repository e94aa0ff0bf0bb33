"""Linear layers: PyTorch's own, and those of others that do the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pruning.sparse.layers import Masks, NoSparseForm, sparse_layer
from pruning.sparse.weights.weight import KEPT, SparseWeight, dense_weight, take_the_place
from pruning.uses.linear import LinearUse

PLAIN = LinearUse("weight", "bias", False)


class SparseLinear(nn.Module):
    """A linear layer that keeps its surviving weights only: [..., in] to [..., out].

    Whoever reads the weight gets the dense one.

    >>> import numpy as np
    >>> sparse = SparseLinear(nn.Linear(2, 1), {"weight": np.array([[True, False]])})
    >>> sparse.weight.shape, sparse.in_features
    (torch.Size([1, 2]), 2)
    """

    def __init__(self, layer: nn.Module, masks: Masks, use: LinearUse = PLAIN) -> None:
        super().__init__()
        if use.weight not in masks:
            raise NoSparseForm(f"the mask is one of {', '.join(masks)} alone, and keeps every weight")
        made = SparseWeight.turned_over if use.turned else SparseWeight
        self.add_module(KEPT + use.weight, made(layer.get_parameter(use.weight), masks[use.weight]))
        if use.bias is not None:
            self.register_parameter(use.bias, layer._parameters[use.bias])
        self.use = use
        take_the_place(self, layer)

    def __getattr__(self, name: str) -> Any:
        return dense_weight(self, name) if KEPT + name in self.__dict__["_modules"] else super().__getattr__(name)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs · Wᵀ + bias."""
        weight = self._modules[KEPT + self.use.weight]
        assert weight is not None
        return weight(inputs, None if self.use.bias is None else self._parameters[self.use.bias])


@sparse_layer(nn.Linear, source="the product of each backend")
def sparse_linear(layer: nn.Module, masks: Masks) -> nn.Module:
    """A linear layer as one sparse product.

    >>> import numpy as np
    >>> layer = nn.Linear(2, 1)
    >>> form = sparse_linear(layer, {"weight": np.array([[True, False]])})
    >>> torch.allclose(form(torch.tensor([[1.0, 5.0]])), layer.weight[:, 0] + layer.bias)
    True
    """
    assert isinstance(layer, nn.Linear)
    return SparseLinear(layer, masks)
