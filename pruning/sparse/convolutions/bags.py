"""A sparse convolution on the CPU as one sparse matrix: every output pixel is a weighted sum of a few input pixels.

    inputs [in · H · W, N], examples side by side ──▶ outputs [out · H' · W', N]

Nothing is unfolded and nothing is padded: a tap that would read padding is left out of the matrix, and stride, dilation
and groups only change which pixel an entry reads.
"""

from __future__ import annotations

import torch

from pruning.errors import BadValue
from pruning.sparse.backends.bags import gathered
from pruning.sparse.convolutions import Size, convolution
from pruning.sparse.plans.convolution_plan import ConvPlan
from pruning.sparse.plans.cost import Machine, sparse_seconds
from pruning.sparse.plans.pattern import convolution_pattern

# Entries of the matrix are 32-bit numbers and take 8 bytes each, twice when it is trained.
_MOST_ENTRIES = 1 << 26


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype in (torch.float32, torch.bfloat16, torch.float16)


def _seconds(plan: ConvPlan, size: Size, rates: Machine) -> float:
    batch, height, width = size
    down, right = plan.geometry.output((height, width))
    entries = plan.entries((height, width))
    if entries > _MOST_ENTRIES:
        return float("inf")
    rows, columns = plan.outputs * down * right, plan.inputs * height * width
    return sparse_seconds(rows, columns, entries, batch, rates) + 8.0 * entries / rates.memory + 3 * rates.call


@convolution("bags", runs=_runs, seconds=_seconds, source="FBGEMM (arXiv 2101.05615), through torch.embedding_bag")
def bags(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """Weighted sums of gathered pixels, on the CPU.

    Raises:
        BadValue: a convolution with more than 67 million products an example.
    """
    examples, size = inputs.shape[0], (inputs.shape[2], inputs.shape[3])
    if plan.entries(size) > _MOST_ENTRIES:
        raise BadValue(f"{plan.entries(size):,} products an example: more than this way to convolve can index")
    pattern, source = convolution_pattern(plan, size, inputs.device)
    pixels = inputs.reshape(examples, plan.inputs * size[0] * size[1]).t()
    # A weight's gradient is a sum over all pixels: in float32, whatever the weights are stored in.
    entries = values.float().index_select(0, source).to(values.dtype)
    outputs = gathered(entries, pixels, pattern)
    return outputs.reshape(plan.outputs, *plan.geometry.output(size), examples).permute(3, 0, 1, 2)
