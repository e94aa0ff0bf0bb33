"""Gathered pixels on CUDA: shifted images, one multiplication for each kept weight and output pixel."""

from __future__ import annotations

import torch

from pruning.sparse.convolutions import Size, convolution
from pruning.sparse.kernels import toolchain
from pruning.sparse.kernels.gather_convolution import gather_convolution
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.plans.convolution_plan import ConvPlan
from pruning.sparse.plans.cost import Machine, sparse_seconds


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return toolchain.runs(gather_sums, device) and dtype in toolchain.DTYPES


def _seconds(plan: ConvPlan, size: Size, rates: Machine) -> float:
    batch, height, width = size
    down, right = plan.geometry.output((height, width))
    copied = 8.0 * batch * (plan.inputs * height * width + plan.outputs * down * right) / rates.memory
    return sparse_seconds(plan.outputs, plan.inputs, plan.weights.kept, batch * down * right, rates) + copied


@convolution(
    "gather", runs=_runs, seconds=_seconds, source="Elsen et al. 2020 (arXiv 1911.09723), for direct sums; Triton"
)
def gather(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """Weighted sums of shifted images, on a CUDA device."""
    return gather_convolution(values, inputs, plan)
