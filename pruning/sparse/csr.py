"""A sparse linear layer on the CPU: compressed rows forward, those of the transpose and a sampled product backward.

    Y [out, B] = W · X [in, B]      dX = Wᵀ · dY      d values = (dY · Xᵀ) at the mask, and nowhere else

Activations are feature-major: the rows of X that a weight needs are then contiguous. Batch-major input would cost a
transposition a layer, which takes longer than the product.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from pruning.errors import BadValue
from pruning.sparse.plan import Plan, Rows

with warnings.catch_warnings():
    # PyTorch says once a process that this layout is in beta; here is nothing that anybody could do about it.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.eye(1).to_sparse_csr()


def csr_linear(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return W · inputs, W being `values` at the plan's mask and 0 elsewhere. Differentiable in both.

    A column that keeps no weight is never read: what stands there, infinities too, has no effect.

    Args:
        values: the kept weights [kept], in the row-major order of the mask; float32 or float64.
        inputs: [in, B], feature-major, of the same type.
        plan: where the weights are.

    Returns:
        [out, B].

    Raises:
        BadValue: shapes that are not the plan's, other types, or tensors that are not on the CPU.

    >>> plan = Plan.of([[1, 0], [0, 1], [0, 0]])
    >>> csr_linear(torch.tensor([2.0, 3.0]), torch.ones(2, 1), plan).flatten().tolist()
    [2.0, 3.0, 0.0]
    """
    if values.shape != (plan.kept,) or inputs.dim() != 2 or inputs.shape[0] != plan.shape[1]:
        raise BadValue(
            f"a plan of {plan.kept} weights in {list(plan.shape)} takes values [{plan.kept}] and inputs "
            f"[{plan.shape[1]}, B], not {list(values.shape)} and {list(inputs.shape)}"
        )
    if values.dtype != inputs.dtype or values.dtype not in (torch.float32, torch.float64):
        raise BadValue(f"compressed rows are float32 or float64 alike, not {values.dtype} and {inputs.dtype}")
    if values.device.type != "cpu" or inputs.device.type != "cpu":
        raise BadValue(f"compressed rows are a CPU's, not for {values.device} and {inputs.device}")
    return _CsrLinear.apply(values, inputs, plan)  # pyright: ignore[reportReturnType]


class _CsrLinear(torch.autograd.Function):
    """Left to itself, autograd makes the whole gradient matrix and takes the kept entries out of it."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
        ctx.save_for_backward(values, inputs)
        ctx.plan = plan
        return _matrix(plan.rows, values, plan.shape) @ inputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, inputs = ctx.saved_tensors
        plan: Plan = ctx.plan
        gradient = gradients[0].contiguous()  # `sum().backward()` hands over strides of 0
        by_values = by_inputs = None
        if ctx.needs_input_grad[0] and plan.kept:
            pattern = _matrix(plan.rows, torch.zeros_like(values), plan.shape)
            by_values = torch.sparse.sampled_addmm(pattern, gradient, inputs.t(), beta=0.0).values()
        elif ctx.needs_input_grad[0]:
            by_values = torch.zeros_like(values)
        if ctx.needs_input_grad[1]:
            order = torch.from_numpy(plan.to_transposed)
            by_inputs = _matrix(plan.transposed, values[order], plan.shape[::-1]) @ gradient
        return by_values, by_inputs, None


def _matrix(rows: Rows, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    starts, columns = torch.from_numpy(rows.starts), torch.from_numpy(rows.columns)
    return torch.sparse_csr_tensor(starts, columns, values.detach(), shape, check_invariants=False)
