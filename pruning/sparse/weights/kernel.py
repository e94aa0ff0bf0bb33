"""The sparse kernel of a convolution as a module: the vector of surviving values is the trainable parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning.registry import Registry
from pruning.sparse.convolutions import CONVOLUTIONS
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.cost import machine
from pruning.sparse.plans.dense import dense_matrix
from pruning.sparse.plans.plan import Plan
from pruning.sparse.weights.weight import as_autocast, kept_entries, kept_values


class SparseKernel(nn.Module):
    """The surviving values of a masked convolution kernel, and the convolution with them.

    Attributes:
        values: the trainable parameter [kept], in the row-major order of the mask.
        convolution: the plan, with the geometry of a two-dimensional convolution.
        shape: the shape of the dense weight.
        backend: the name of the way to convolve; changed in place by whoever chooses.

    >>> kernel = SparseKernel(torch.ones(1, 1, 1, 2), np.array([[[[True, False]]]]), Geometry((1, 2)))
    >>> kernel(torch.tensor([[[[1.0, 2.0, 3.0]]]])).tolist()
    [[[[1.0, 2.0]]]]
    """

    def __init__(
        self, weight: torch.Tensor, keep: NDArray[np.bool_], geometry: Geometry, backend: str = "dense"
    ) -> None:
        super().__init__()
        self.values = kept_values(weight, keep)
        self.shape = tuple(weight.shape)
        self.convolution = ConvPlan.of(keep.reshape(*keep.shape[:2], *geometry.kernel), geometry)
        self.backend = backend

    @property
    def plan(self) -> Plan:
        """The plan of the matrix [out, in / groups · height · width]."""
        return self.convolution.weights

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the convolution of inputs [N, in, H, W], [N, out, H', W']; memory may be laid out in any order."""
        values, inputs, _ = as_autocast(self.values, inputs, None)
        chosen = CONVOLUTIONS[self.backend].value
        if not chosen.runs(inputs.device, inputs.dtype):
            # the network has gone to another device or type of numbers since backends were chosen
            chosen = CONVOLUTIONS["dense"].value
        return chosen.product(values, inputs, self.convolution)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values: some networks ask a layer's weight for it."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.values.device

    def registry(self) -> Registry[Any]:
        """Return the ways to convolve there are."""
        return CONVOLUTIONS

    def options(self, inputs: torch.Tensor) -> dict[str, float]:
        """Return the cost in seconds, by the cost model, of each way that runs on these inputs."""
        rates = machine(inputs.device, inputs.dtype)
        size = inputs.shape[0], inputs.shape[2], inputs.shape[3]
        return {
            entry.name: entry.value.seconds(self.convolution, size, rates)
            for entry in CONVOLUTIONS
            if entry.value.runs(inputs.device, inputs.dtype)
        }

    def dense(self) -> torch.Tensor:
        """Return the dense weight of the original shape, removed weights 0; differentiable."""
        return self.spread(self.values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return the dense weight with these surviving values."""
        return dense_matrix(values, self.plan).reshape(self.shape)

    def gathered(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the surviving values of a dense weight."""
        return kept_entries(weight, self.plan)

    def extra_repr(self) -> str:
        """Say shape, density and backend where the module is printed."""
        return f"{self.shape}, kept={self.plan.kept}, density={self.plan.density:.4g}, backend={self.backend!r}"
