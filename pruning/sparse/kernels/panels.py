"""Products with panels of rows that share their columns: Triton, forward and backward.

    forward   Y [out, B]  = panels of W  · gathered rows of X        dX = panels of Wᵀ · gathered rows of dY
              d values    = dY of a panel · (gathered rows of X)ᵀ, at the kept weights

What it costs against dense is `panel_plan.union_density` over the tensor cores' rate on panels: about 40 % of a dense
product's at heights 16 and 32 (`mma.sync`) and 60 % at 64 (`wgmma`); modelled, not measured. The code that
the compiler makes copies activations 16 bytes at a time, except in TF32 at height 64, where `wgmma` wants them
turned and they come 4 bytes at a time: measure 16 and 32 beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from pruning.errors import BadValue, unknown
from pruning.sparse.kernels.panel_kernels import panel_gradients, panel_products
from pruning.sparse.kernels.panel_plan import CHUNK, Panels, panels, transposed_panels
from pruning.sparse.kernels.toolchain import LAUNCH, is_interpreted, on, require, tl
from pruning.sparse.kernels.widths import alignment, on_its_own, padded, padded_width, power_of_two
from pruning.sparse.plans.plan import Plan

HEIGHTS = (16, 32, 64)
WARPS = 4
"""How many share a panel."""

PRECISIONS = ("ieee", "tf32")


def panel_linear(
    values: torch.Tensor, inputs: torch.Tensor, plan: Plan, *, height: int = 16, precision: str = "ieee"
) -> torch.Tensor:
    """Multiply a sparse matrix, or a population of matrices with one mask, with activations.

    An input that no weight of a panel reads is never read there. One that some row of a panel reads meets zeros in the
    other rows: infinity and NaN in it make those outputs NaN too, as they do in a masked dense product.

    Args:
        values: [kept] in row-major order of the mask, or [P, kept]; float32, bfloat16 or float16.
        inputs: [in, B], or [P, in, B], any strides; float32, bfloat16 or float16. The side without P is shared by
            all members, and its gradient is the sum over them.
        plan: the plan of the mask [out, in].
        height: rows of a panel: 16, 32 or 64.
        precision: of products of float32: "ieee", or "tf32" (11 bits of mantissa, on the tensor cores).

    Returns:
        [out, B] or [P, out, B] in the inputs' type, summed in float32; rows may be padded in memory.

    Raises:
        BadValue, UnknownName: shapes or types that do not fit, an unknown height or precision.
        DeviceError: no triton, or no CUDA device.

    >>> panel_linear(values.cuda(), inputs.cuda(), plan, precision="tf32")  # doctest: +SKIP
    """
    if height not in HEIGHTS:
        raise BadValue(f"panels have a height of {', '.join(map(str, HEIGHTS))}, not {height}")
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    _check_shapes(values, inputs, plan)
    require(panel_products, "panel_linear", values, inputs)
    return _PanelLinear.apply(values, inputs, _Shape(plan, height, precision))  # pyright: ignore[reportReturnType]


def _check_shapes(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> None:
    fits = values.ndim in (1, 2) and inputs.ndim in (2, 3)
    if not fits or values.shape[-1] != plan.kept or inputs.shape[-2] != plan.shape[1]:
        raise BadValue(
            f"values [{plan.kept}] or [P, {plan.kept}] and inputs [{plan.shape[1]}, B] or [P, {plan.shape[1]}, B] fit "
            f"this plan, not {list(values.shape)} and {list(inputs.shape)}"
        )
    if values.ndim == 2 and inputs.ndim == 3 and len(values) != len(inputs):
        raise BadValue(f"values of {len(values)} members and inputs of {len(inputs)}")


@dataclass(frozen=True)
class _Shape:
    plan: Plan
    height: int
    precision: str


@dataclass(frozen=True)
class _Tables:
    """Panels on a device; see `Panels`."""

    rows: torch.Tensor
    starts: torch.Tensor
    columns: torch.Tensor
    owners: torch.Tensor
    positions: torch.Tensor


def _tables(plan: Plan, height: int, device: torch.device, side: str) -> _Tables:
    key = "panels", side, height, device
    if key not in plan.made:
        made: Panels = (panels if side == "forward" else transposed_panels)(plan, height)
        arrays = made.rows, made.starts, made.columns, made.owners, made.positions
        plan.made[key] = _Tables(*(torch.from_numpy(array).to(device) for array in arrays))
    return plan.made[key]


class _PanelLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, shape: _Shape) -> torch.Tensor:
        batch = inputs.shape[-1]
        wide = padded(inputs, padded_width(batch, least=16))
        by_values, by_inputs, _ = ctx.needs_input_grad
        ctx.save_for_backward(values if by_inputs else None, wide if by_values else None)
        ctx.shape, ctx.values_like, ctx.inputs_shape = shape, (values.shape, values.dtype), inputs.shape
        members = len(inputs) if inputs.ndim == 3 else len(values) if values.ndim == 2 else None
        lead = () if members is None else (members,)
        outputs = _products(values, wide, shape, "forward", lead)
        return on_its_own(outputs[..., :batch])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, inputs = ctx.saved_tensors
        shape: _Shape = ctx.shape
        batch = gradient.shape[-1]
        gradient = padded(gradient, padded_width(batch, least=16))
        by_values = by_inputs = None
        if ctx.needs_input_grad[0]:
            like, dtype = ctx.values_like
            by_values = _gradients(inputs, gradient, shape, like).to(dtype)
        if ctx.needs_input_grad[1]:
            lead = ctx.inputs_shape[:-2]
            by_inputs = _products(values, gradient, shape, "backward", lead)[..., :batch]
        return by_values, by_inputs, None


def _products(
    values: torch.Tensor, inputs: torch.Tensor, shape: _Shape, side: str, lead: tuple[int, ...]
) -> torch.Tensor:
    """Return panels · inputs, [*lead, rows, width]; what has more members than `lead` is summed over them."""
    plan, width = shape.plan, inputs.shape[-1]
    rows = plan.shape[0] if side == "forward" else plan.shape[1]
    members = lead[0] if lead else 1
    everyone = max(len(values) if values.ndim == 2 else 1, len(inputs) if inputs.ndim == 3 else 1)
    if not (plan.kept and width and members and everyone):
        return inputs.new_zeros(*lead, rows, width)
    outputs = inputs.new_empty(*lead, rows, width)
    tables = _tables(plan, shape.height, inputs.device, side)
    values = values.contiguous()
    count = len(tables.starts) - 1
    batch = min(128, power_of_two(width))
    tiles = -(-width // batch)
    with on(inputs.device):
        panel_products[(count * tiles * members,)](
            inputs,
            values,
            tables.rows,
            tables.starts,
            tables.columns,
            tables.positions,
            outputs,
            count,
            tiles,
            rows,
            everyone // members,
            width // alignment(width),
            inputs.stride(0) if inputs.ndim == 3 else 0,
            plan.kept if values.ndim == 2 else 0,
            HEIGHT=shape.height,
            CHUNK=CHUNK,
            BATCH=batch,
            ALIGN=alignment(width),
            OPERAND=_operand(values, inputs),
            PRECISION=shape.precision,
            num_warps=WARPS,
            num_stages=3,
            **LAUNCH,
        )
    return outputs


def _gradients(inputs: torch.Tensor, gradient: torch.Tensor, shape: _Shape, like: torch.Size) -> torch.Tensor:
    """Return the gradients of the values [*like], float32."""
    plan, width = shape.plan, inputs.shape[-1]
    members = like[0] if len(like) == 2 else 1
    everyone = len(gradient) if gradient.ndim == 3 else 1
    if not (plan.kept and width and members and everyone):
        return torch.zeros(like, device=inputs.device)
    outputs = torch.empty(like, device=inputs.device)
    tables = _tables(plan, shape.height, inputs.device, "forward")
    with on(inputs.device):
        panel_gradients[(len(tables.owners) * members,)](
            inputs,
            gradient,
            tables.rows,
            tables.columns,
            tables.owners,
            tables.positions,
            outputs,
            len(tables.owners),
            plan.shape[0],
            everyone // members,
            width // alignment(width),
            inputs.stride(0) if inputs.ndim == 3 else 0,
            plan.kept,
            HEIGHT=shape.height,
            CHUNK=CHUNK,
            BATCH=min(64, power_of_two(width)),
            ALIGN=alignment(width),
            OPERAND=_operand(gradient, inputs),
            PRECISION=shape.precision,
            num_warps=WARPS,
            num_stages=3,
            **LAUNCH,
        )
    return outputs


def _operand(left: torch.Tensor, right: torch.Tensor) -> Any:
    """Return the type in which both are multiplied: the wider one."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    if is_interpreted(panel_products) and dtype == torch.bfloat16:
        return tl.float32  # The interpreter multiplies the bits of bfloat16 as if they were integers.
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]
