"""Products that are compiled for this machine, on the CPU: a kept weight times a row of a packed block of examples.

    forward  Y [out, B] = W · X [in, B]     dX = Wᵀ · dY     d values = dY · Xᵀ at the mask, and nowhere else

Whichever way activations lie, outputs lie the same way: layers around see no difference. What the forward pass packed
serves the gradient of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from pruning.sparse.backends import backend
from pruning.sparse.native.compiling import Missing
from pruning.sparse.native.products import ActivationsOf, PatternOf, products
from pruning.sparse.native.threads import LANES, Compiled, check
from pruning.sparse.plans.cost import Machine, sparse_seconds
from pruning.sparse.plans.plan import Plan


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.float32 and isinstance(products(), Compiled)


# Of the seconds of gathered rows: a block is packed once, and its rows stay in the cache. Measured.
_OF_GATHERED = 0.6


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    return _OF_GATHERED * sparse_seconds(*plan.shape, plan.kept, batch, rates) + 5 * rates.call


@backend("compiled", runs=_runs, seconds=_seconds, source="results/sparse-forward; pruning/sparse/native/products.c")
def compiled(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Weighted sums of rows of activations in C, compiled on the machine that runs it.

    An input that no weight reads is never read: what stands there, infinities too, has no effect.

    >>> if isinstance(products(), Compiled):
    ...     compiled(torch.tensor([2.0, 3.0]), torch.ones(2, 1), Plan.of([[1, 0], [0, 1], [0, 0]])).flatten().tolist()
    ... else:
    ...     [2.0, 3.0, 0.0]
    [2.0, 3.0, 0.0]
    """
    if not torch.is_grad_enabled():
        return _forward(values, inputs, _patterns(plan))[0]
    return _Product.apply(values, inputs, _patterns(plan))  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Patterns:
    """A plan as the compiled functions read it.

    Attributes:
        shape: (out, in).
        kept: how many weights there are.
        rows: the matrix.
        columns: its transpose, whose values lie where those of the matrix do.
        held: the arrays that both point to.
    """

    shape: tuple[int, int]
    kept: int
    rows: PatternOf
    columns: PatternOf
    held: Any


def _patterns(plan: Plan) -> _Patterns:
    if "compiled" not in plan.made:
        rows, columns, at = plan.rows, plan.transposed, plan.to_transposed
        plan.made["compiled"] = _Patterns(
            plan.shape,
            plan.kept,
            PatternOf(rows.starts.ctypes.data, rows.columns.ctypes.data, None),
            PatternOf(columns.starts.ctypes.data, columns.columns.ctypes.data, at.ctypes.data),
            (rows, columns, at),
        )
    return plan.made["compiled"]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, patterns: _Patterns) -> torch.Tensor:
        outputs, packed = _forward(values, inputs, patterns)
        ctx.save_for_backward(values, packed)
        ctx.patterns = patterns
        return outputs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, packed = ctx.saved_tensors
        patterns: _Patterns = ctx.patterns
        by_values, by_inputs, _ = ctx.needs_input_grad
        (rows, columns), batch = patterns.shape, gradient.shape[1]
        run, threads = _run(patterns, batch)
        gradient = _laid_out(gradient)
        below = gradient.new_empty((batch, columns) if gradient.stride(0) == 1 else (columns, batch))
        below = below.t() if gradient.stride(0) == 1 else below
        packed_gradient = _packed(rows, batch)
        to = _activations(below) if by_inputs else ActivationsOf(None, 0, 0, 0)
        error = run.library.product_sums(
            *(run.parallel, threads, patterns.columns, patterns.rows, values.data_ptr()),
            *(_activations(gradient), to, packed_gradient.data_ptr(), batch),
        )
        check(error)
        slopes = None
        if by_values:
            slopes = values.new_zeros(patterns.kept) if not batch else values.new_empty(patterns.kept)
            run.library.product_slopes(
                *(run.parallel, threads, patterns.rows, patterns.columns, packed.data_ptr()),
                packed_gradient.data_ptr(),
                *(slopes.data_ptr(), columns, rows, batch),
            )
        return slopes, below if by_inputs else None, None


def _forward(values: torch.Tensor, inputs: torch.Tensor, patterns: _Patterns) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs [out, B], and the inputs as they were packed."""
    (rows, columns), batch = patterns.shape, inputs.shape[1]
    run, threads = _run(patterns, batch)
    inputs, values = _laid_out(inputs.detach()), values.detach().contiguous()
    by_example = inputs.stride(0) == 1
    outputs = inputs.new_empty((batch, rows) if by_example else (rows, batch))
    outputs = outputs.t() if by_example else outputs
    packed = _packed(columns, batch)
    error = run.library.product_sums(
        *(run.parallel, threads, patterns.rows, patterns.columns, values.data_ptr()),
        *(_activations(inputs), _activations(outputs), packed.data_ptr(), batch),
    )
    check(error)
    return outputs, packed


def _run(patterns: _Patterns, batch: int) -> tuple[Compiled, int]:
    found = products()
    assert not isinstance(found, Missing)
    return found, found.threads(2.0 * patterns.kept * batch)


def _laid_out(activations: torch.Tensor) -> torch.Tensor:
    """Return activations [features, B] whose examples or features lie side by side in memory."""
    if 1 in activations.stride() and min(activations.stride()) > 0:
        return activations
    return activations.t().contiguous().t()


def _activations(tensor: torch.Tensor) -> ActivationsOf:
    return ActivationsOf(tensor.data_ptr(), tensor.shape[0], tensor.stride(0), tensor.stride(1))


def _packed(features: int, batch: int) -> torch.Tensor:
    """Return room for activations in blocks; PyTorch's memory is aligned for vectors of any processor."""
    return torch.empty(features * -(-batch // LANES) * LANES)
