"""Linear layers."""

from __future__ import annotations

import torch
from torch import nn

from pruning.sparse.layers import Masks, NoSparseForm, sparse_layer
from pruning.sparse.weight import SparseWeight, hold_dense_state


class SparseLinear(nn.Module):
    """A linear layer that keeps its surviving weights only: [..., in] to [..., out]."""

    def __init__(self, layer: nn.Linear, masks: Masks) -> None:
        super().__init__()
        if "weight" not in masks:
            raise NoSparseForm(f"the mask is one of {', '.join(masks)} alone, and keeps every weight")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = SparseWeight(layer.weight, masks["weight"])
        self.bias = layer.bias
        self.train(layer.training)
        hold_dense_state(self)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs · Wᵀ + bias."""
        return self.weight(inputs, self.bias)


@sparse_layer(nn.Linear, source="the product of each backend")
def sparse_linear(layer: nn.Module, masks: Masks) -> nn.Module:
    """A linear layer as one sparse product."""
    assert isinstance(layer, nn.Linear)
    return SparseLinear(layer, masks)
