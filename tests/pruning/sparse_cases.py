"""Masks and products that every backend of the sparse forward pass must survive, and the answer in float64."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry

MASKS = {
    "some": np.random.default_rng(0).random((6, 7)) < 0.3,
    "all": np.ones((3, 4), bool),
    "none": np.zeros((3, 4), bool),
    "one": np.eye(1, 12, 5, dtype=bool).reshape(3, 4),
    "an empty row and column": np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0]], bool),
    "one output": np.array([[1, 0, 1, 1]], bool),
    "one input": np.array([[1], [0], [1]], bool),
    "one weight in all": np.array([[1]], bool),
    "large": np.random.default_rng(1).random((70, 90)) < 0.05,
}

# Where there is a compiler, what does not compile is a failure.
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")

GEOMETRIES = {
    "plain": ((5, 3, 3, 3), Geometry((3, 3))),
    "padded": ((5, 3, 3, 3), Geometry((3, 3), padding=((1, 1), (1, 1)))),
    "strided": ((4, 3, 3, 2), Geometry((3, 2), (2, 3), ((1, 1), (0, 0)))),
    "uneven padding": ((4, 2, 2, 4), Geometry((2, 4), padding=((0, 1), (1, 2)))),
    "dilated": ((4, 2, 3, 3), Geometry((3, 3), (1, 2), ((2, 2), (1, 1)), (2, 1))),
    "grouped": ((6, 2, 3, 3), Geometry((3, 3), padding=((1, 1), (1, 1)), groups=3)),
    "depthwise": ((4, 1, 3, 3), Geometry((3, 3), (2, 2), ((1, 1), (1, 1)), groups=4)),
    "one pixel": ((4, 3, 1, 1), Geometry((1, 1))),
}


def problem(
    mask: NDArray[np.bool_], batch: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random values [kept] and inputs [in, batch], both asking for gradients."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(int(mask.sum()), generator=generator, dtype=torch.float64)
    inputs = torch.randn(mask.shape[1], batch, generator=generator, dtype=torch.float64)
    return values.to(dtype).requires_grad_(), inputs.to(dtype).requires_grad_()


def dense_product(values: torch.Tensor, inputs: torch.Tensor, mask: NDArray[np.bool_]) -> torch.Tensor:
    """Return the product with the masked dense matrix, in float64."""
    weights = torch.zeros(mask.shape, dtype=torch.float64)
    weights[torch.from_numpy(mask)] = values.double()
    return weights @ inputs.double()


def dense_convolution(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """Return the convolution with the masked dense kernel, in float64."""
    kernel = torch.zeros(plan.weights.shape, dtype=torch.float64)
    kernel[torch.from_numpy(plan.weights.mask)] = values.double()
    geometry = plan.geometry
    (above, below), (left, right) = geometry.padding
    padded = F.pad(inputs.double(), (left, right, above, below))
    kernel = kernel.reshape(plan.outputs, -1, *geometry.kernel)
    return F.conv2d(padded, kernel, None, geometry.stride, 0, geometry.dilation, geometry.groups)
