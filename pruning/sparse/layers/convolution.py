"""Convolutions in one and two dimensions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.conv import _ConvNd

from pruning.sparse.layers import Masks, NoSparseForm, sparse_layer
from pruning.sparse.plans.convolution_plan import Geometry
from pruning.sparse.weights.kernel import SparseKernel
from pruning.sparse.weights.weight import dense_weight, take_the_place


class SparseConvolution(nn.Module):
    """A convolution that keeps its surviving weights only: [N, in, …] to [N, out, …], or one example without N."""

    def __init__(self, layer: _ConvNd, masks: Masks) -> None:
        super().__init__()
        if "weight" not in masks:
            raise NoSparseForm(f"the mask is one of {', '.join(masks)} alone, and keeps every weight")
        self.axes = len(layer.kernel_size)
        self.padded_with = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        # pairs (before, after) of each axis, as the layer itself pads
        amounts = list(layer._reversed_padding_repeated_twice)
        pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1]
        self.padded = amounts if self.padded_with != "constant" else []
        inside = pairs if self.padded_with == "constant" else [(0, 0)] * self.axes
        height = [(1, 1, (0, 0), 1)] * (2 - self.axes)
        each = [*height, *zip(layer.kernel_size, layer.stride, inside, layer.dilation, strict=True)]
        kernel, stride, padding, dilation = (tuple(column) for column in zip(*each, strict=True))
        geometry = Geometry(kernel, stride, padding, dilation, layer.groups)  # pyright: ignore[reportArgumentType]
        self.kept_weight = SparseKernel(layer.weight, masks["weight"], geometry)
        self.bias = layer.bias
        take_the_place(self, layer)

    def __getattr__(self, name: str) -> Any:
        return dense_weight(self, name) if name == "weight" else super().__getattr__(name)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the convolution of inputs with the sparse kernel, plus the bias."""
        single = inputs.dim() == self.axes + 1
        images = inputs[None] if single else inputs
        if self.padded:
            images = F.pad(images, self.padded, self.padded_with)
        outputs = self.kept_weight(images if self.axes == 2 else images.unsqueeze(2))
        if self.bias is not None:
            shift = self.bias.to(outputs.dtype)[:, None, None]
            # A view of what autograd remembers cannot be written into.
            outputs = outputs + shift if outputs.requires_grad and outputs._is_view() else outputs.add_(shift)
        outputs = outputs if self.axes == 2 else outputs.squeeze(2)
        return outputs[0] if single else outputs


@sparse_layer(nn.Conv2d, source="pruning/sparse/convolutions")
def sparse_convolution_2d(layer: nn.Module, masks: Masks) -> nn.Module:
    """A two-dimensional convolution: any stride, padding, dilation and groups.

    >>> import numpy as np
    >>> form = sparse_convolution_2d(nn.Conv2d(1, 1, 2), {"weight": np.array([[[[True, False], [False, False]]]])})
    >>> form(torch.zeros(4, 1, 5, 5)).shape, sum(parameter.numel() for parameter in form.parameters())
    (torch.Size([4, 1, 4, 4]), 2)
    """
    assert isinstance(layer, nn.Conv2d)
    return SparseConvolution(layer, masks)


@sparse_layer(nn.Conv1d, source="pruning/sparse/convolutions")
def sparse_convolution_1d(layer: nn.Module, masks: Masks) -> nn.Module:
    """A one-dimensional convolution, as one over images of height 1.

    >>> import numpy as np
    >>> form = sparse_convolution_1d(nn.Conv1d(1, 1, 2), {"weight": np.array([[[True, False]]])})
    >>> form(torch.zeros(4, 1, 5)).shape, sum(parameter.numel() for parameter in form.parameters())
    (torch.Size([4, 1, 4]), 2)
    """
    assert isinstance(layer, nn.Conv1d)
    return SparseConvolution(layer, masks)
