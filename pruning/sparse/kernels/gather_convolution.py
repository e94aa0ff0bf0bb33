"""Two-dimensional convolutions by gathered lines of images on CUDA: Triton, forward and backward.

    forward   lines of the outputs = weighted sums of lines of the inputs       no matrix of patches is ever made
              d inputs             = weighted sums of lines of the outputs' gradients
              d values             = products of lines of both, at the kept weights and nowhere else

The examples of a batch are innermost in memory (C, H, W, N), so that a shift by a pixel keeps its alignment: from a
batch of 16 on, all loads are vectors. What it costs is what `gather` costs, and a copy of inputs and of gradients into
this order. Modelled, not measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from pruning.errors import BadValue
from pruning.sparse.kernels.convolution_layout import (
    Layout,
    convolution_reads,
    framed,
    from_phases,
    inside,
    to_phases,
)
from pruning.sparse.kernels.gather import Table, gradients_of_weights, weighted_sums
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.kernels.toolchain import require
from pruning.sparse.kernels.widths import on_its_own
from pruning.sparse.plans.convolution_plan import ConvPlan, Pair


def gather_convolution(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """Convolve images with a sparse kernel, reading nothing that no weight needs.

    A channel that no weight reads has no effect, be it infinite. Padding supplies zeros, as in a dense convolution.

    Args:
        values: [kept] in row-major order of the mask [out, in / groups, height, width]; float32, bfloat16 or float16.
        inputs: [N, in, H, W], any strides; float32, bfloat16 or float16.
        plan: the plan of the convolution: any stride, padding, dilation and groups.

    Returns:
        [N, out, H', W'] in the inputs' type, summed in float32; the examples innermost in memory.

    Raises:
        BadValue: shapes or types that do not fit, a kernel that is larger than the padded image.
        DeviceError: no triton, or no CUDA device.

    >>> gather_convolution(values.cuda(), images.cuda(), plan)  # doctest: +SKIP
    """
    if values.shape != (plan.weights.kept,) or inputs.ndim != 4 or inputs.shape[1] != plan.inputs:
        raise BadValue(
            f"values [{plan.weights.kept}] and inputs [N, {plan.inputs}, H, W] fit this plan, not "
            f"{list(values.shape)} and {list(inputs.shape)}"
        )
    layout = Layout.of(plan.geometry, (inputs.shape[2], inputs.shape[3]))
    require(gather_sums, "gather_convolution", values, inputs)
    return _GatherConvolution.apply(values, inputs, plan, layout)  # pyright: ignore[reportReturnType]


class _GatherConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan, layout: Layout) -> torch.Tensor:
        by_values, by_inputs, *_ = ctx.needs_input_grad
        phases = to_phases(inputs, layout)
        ctx.save_for_backward(values if by_inputs else None, phases if by_values else None)
        ctx.plan, ctx.layout, ctx.dtype = plan, layout, values.dtype
        table = _tables(plan, layout.size, inputs.device)[0]
        outputs = weighted_sums(values, phases, table, layout.forward)
        whole = outputs.view(plan.outputs, *layout.output, phases.shape[-1])
        return on_its_own(whole[..., : len(inputs)].permute(3, 0, 1, 2))

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        values, phases = ctx.saved_tensors
        plan, layout = ctx.plan, ctx.layout
        frame = framed(gradient, layout)
        forward, backward, order = _tables(plan, layout.size, gradient.device)
        by_values = by_inputs = None
        if ctx.needs_input_grad[0]:
            by_values = gradients_of_weights(phases, inside(frame, layout), forward, layout.forward).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            sums = weighted_sums(values.index_select(0, order), frame, backward, layout.backward)
            whole = sums.view(*plan.geometry.stride, plan.inputs, *layout.phase, frame.shape[-1])
            by_inputs = from_phases(whole, layout, len(gradient))
        return by_values, by_inputs, None, None


def _tables(plan: ConvPlan, size: Pair, device: torch.device) -> tuple[Table, Table, torch.Tensor]:
    key = "gather convolution", plan.geometry, size, device
    made = plan.weights.made
    if key not in made:
        forward, backward, order = convolution_reads(plan, Layout.of(plan.geometry, size))
        made[key] = Table.of(forward, device), Table.of(backward, device), torch.from_numpy(order).to(device)
    return made[key]
