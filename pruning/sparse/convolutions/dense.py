"""The masked dense convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pruning.sparse.convolutions import Size, convolution
from pruning.sparse.plans.convolution_plan import ConvPlan
from pruning.sparse.plans.cost import Machine, dense_seconds
from pruning.sparse.plans.dense import dense_matrix


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def _seconds(plan: ConvPlan, size: Size, rates: Machine) -> float:
    down, right = plan.geometry.output(size[1:])
    rows, columns = plan.weights.shape
    return dense_seconds(rows, columns, size[0] * down * right, rates)


@convolution("dense", runs=_runs, seconds=_seconds, source="cuDNN, oneDNN")
def dense(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """A convolution with the kernel that holds 0 where nothing is kept."""
    geometry = plan.geometry
    kernel = dense_matrix(values, plan.weights).reshape(plan.outputs, plan.inputs // geometry.groups, *geometry.kernel)
    (above, below), (left, right) = geometry.padding
    padding: tuple[int, int] = (above, left)
    if (above, left) != (below, right):
        inputs, padding = F.pad(inputs, (left, right, above, below)), (0, 0)
    return F.conv2d(inputs, kernel, None, geometry.stride, padding, geometry.dilation, geometry.groups)
