"""Products on the CPU with a matrix given row by row, and their gradients, whatever sums the rows.

    forward  Y = W · X     backward  dX = Wᵀ · dY, by the pattern of the transpose     d values = dY · Xᵀ at the mask

Left to itself, autograd makes the whole gradient matrix and takes the kept entries out of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from pruning.sparse.plans.pattern import RowPattern, RowPatternBothWays

Multiply = Callable[[torch.Tensor, torch.Tensor, RowPattern], torch.Tensor]

with warnings.catch_warnings():
    # PyTorch warns once in each process that compressed rows are in beta. A user cannot act on that warning.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.eye(1).to_sparse_csr()


def by_rows(
    multiply: Multiply, entries: torch.Tensor, inputs: torch.Tensor, pattern: RowPatternBothWays
) -> torch.Tensor:
    """Return the product of a sparse matrix and inputs; differentiable once, in entries and inputs.

    Args:
        multiply: `multiply(entries, inputs, pattern)` of one direction, without gradients.
        entries: the entries of the matrix, row by row.
        inputs: [columns, B].
        pattern: where the entries lie, in both directions.
    """
    if not torch.is_grad_enabled():
        return multiply(entries, inputs, pattern.forward)
    return _ByRows.apply(multiply, entries, inputs, pattern)  # pyright: ignore[reportReturnType]


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, multiply: Multiply, entries: torch.Tensor, inputs: torch.Tensor, pattern: RowPatternBothWays
    ) -> torch.Tensor:
        ctx.save_for_backward(entries, inputs)
        ctx.multiply, ctx.pattern = multiply, pattern
        return multiply(entries, inputs, pattern.forward)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[None, torch.Tensor | None, torch.Tensor | None, None]:
        entries, inputs = ctx.saved_tensors
        pattern: RowPatternBothWays = ctx.pattern
        by_entries = by_inputs = None
        if ctx.needs_input_grad[1]:
            by_entries = _sampled(gradient, inputs, pattern.forward).to(entries.dtype)
        if ctx.needs_input_grad[2]:
            by_inputs = ctx.multiply(entries.index_select(0, pattern.order), gradient, pattern.backward)
        return None, by_entries, by_inputs, None


def _sampled(gradient: torch.Tensor, inputs: torch.Tensor, pattern: RowPattern) -> torch.Tensor:
    """Return `gradient · inputsᵀ` at the entries of the pattern, and nowhere else."""
    if not len(pattern.columns) or not inputs.shape[1]:
        return gradient.new_zeros(len(pattern.columns))
    if gradient.dtype in (torch.bfloat16, torch.float16):
        gradient, inputs = gradient.float(), inputs.float()
    nothing = gradient.new_zeros(len(pattern.columns))
    where = torch.sparse_csr_tensor(
        pattern.starts, pattern.columns, nothing, (gradient.shape[0], inputs.shape[0]), check_invariants=False
    )
    return torch.sparse.sampled_addmm(where, gradient.contiguous(), inputs.contiguous().t(), beta=0.0).values()
