"""The sparse kernel of a convolution as a module: the vector of surviving values is the trainable parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruning.registry import Registry
from pruning.sparse.convolutions import CONVOLUTIONS
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.cost import machine
from pruning.sparse.weights.weight import Sparse, as_autocast


class SparseKernel(Sparse):
    """The surviving values of a masked convolution kernel, and the convolution with them.

    Attributes:
        convolution: the plan, with the geometry of a two-dimensional convolution.

    >>> kernel = SparseKernel(torch.ones(1, 1, 1, 2), np.array([[[[True, False]]]]), Geometry((1, 2)))
    >>> kernel(torch.tensor([[[[1.0, 2.0, 3.0]]]])).tolist()
    [[[[1.0, 2.0]]]]
    """

    def __init__(
        self, weight: torch.Tensor, keep: NDArray[np.bool_], geometry: Geometry, backend: str = "dense"
    ) -> None:
        convolution = ConvPlan.of(keep.reshape(*keep.shape[:2], *geometry.kernel), geometry)
        super().__init__(weight, keep, convolution.weights, backend)
        self.convolution = convolution

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the convolution of inputs [N, in, H, W], [N, out, H', W']; memory may be laid out in any order."""
        values, inputs, _ = as_autocast(self.values, inputs, None)
        chosen = CONVOLUTIONS[self.backend].value
        if not chosen.runs(inputs.device, inputs.dtype):
            # the network has gone to another device or type of numbers since backends were chosen
            chosen = CONVOLUTIONS["dense"].value
        return chosen.product(values, inputs, self.convolution)

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
