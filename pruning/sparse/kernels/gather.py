"""Gathered rows on CUDA: one multiplication for each kept weight and example. Triton, forward and backward.

    forward   Y [out, B] = weighted sums of rows of X [in, B]        dX = weighted sums of rows of dY, by the transpose
              d values   = dY · Xᵀ at the kept weights, and nowhere else

One operand of each multiplication comes from the first-level cache, whose rate bounds it: 16 of the 67 TFLOP/s that an
H200 has in float32, of which 9 to 12 are planned with. In a batch of 1 to 8 the weights' bytes bound it instead.
Modelled, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from pruning.errors import BadValue
from pruning.sparse.kernels.gather_kernels import gather_gradients, gather_sums
from pruning.sparse.kernels.gather_plan import (
    Reads,
    Runs,
    gradient_tile,
    linear_reads,
    parts_of,
    row_groups,
    segments,
    sum_tile,
    transposed_reads,
)
from pruning.sparse.kernels.toolchain import LAUNCH, on, require
from pruning.sparse.kernels.widths import alignment, on_its_own, padded, padded_width
from pruning.sparse.plans.plan import Plan


def gather_linear(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Multiply a sparse matrix with activations, reading nothing that no weight needs.

    An input that no weight reads has no effect, be it infinite; one that some weights read has none on other outputs.

    Args:
        values: [kept] in row-major order of the mask; float32, bfloat16 or float16.
        inputs: [in, B], any strides; float32, bfloat16 or float16.
        plan: the plan of the mask [out, in].

    Returns:
        [out, B] in the inputs' type, summed in float32; rows may be padded in memory.

    Raises:
        BadValue: shapes or types that do not fit.
        DeviceError: no triton, or no CUDA device.

    >>> gather_linear(values.cuda(), inputs.cuda(), plan)  # doctest: +SKIP
    """
    if values.shape != (plan.kept,) or inputs.ndim != 2 or inputs.shape[0] != plan.shape[1]:
        raise BadValue(
            f"values [{plan.kept}] and inputs [{plan.shape[1]}, B] fit this plan, not {list(values.shape)} and "
            f"{list(inputs.shape)}"
        )
    require(gather_sums, "gather_linear", values, inputs)
    return _GatherLinear.apply(values, inputs, plan)  # pyright: ignore[reportReturnType]


class _GatherLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
        batch = inputs.shape[1]
        by_values, by_inputs, _ = ctx.needs_input_grad
        inputs = padded(inputs, padded_width(batch))
        ctx.save_for_backward(values if by_inputs else None, inputs if by_values else None)
        ctx.plan, ctx.dtype = plan, values.dtype
        return on_its_own(weighted_sums(values, inputs, _tables(plan, inputs.device)[0], Runs())[:, 0, :batch])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, inputs = ctx.saved_tensors
        batch = gradient.shape[1]
        gradient = padded(gradient, padded_width(batch))
        forward, backward, order = _tables(ctx.plan, gradient.device)
        by_values = by_inputs = None
        if ctx.needs_input_grad[0]:
            by_values = gradients_of_weights(inputs, gradient[:, None], forward, Runs()).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            by_inputs = weighted_sums(values.index_select(0, order), gradient, backward, Runs())[:, 0, :batch]
        return by_values, by_inputs, None


@dataclass(frozen=True)
class Table:
    """Reads on a device.

    Attributes:
        reads: on the host.
        device: where the tensors lie.
        starts: the starts of the rows [rows + 1].
        bases: of the weights [kept].
        made: the tensors that cut this into programs, for each shape of a tile.
    """

    reads: Reads
    device: torch.device
    starts: torch.Tensor
    bases: torch.Tensor
    made: dict[tuple[str, int], tuple[torch.Tensor, ...]]

    @classmethod
    def of(cls, reads: Reads, device: torch.device) -> Table:
        """Return the reads on a device."""
        return cls(reads, device, _tensor(reads.starts, device), _tensor(reads.bases, device), {})

    @cached_property
    def longest(self) -> int:
        """The most weights that a row keeps."""
        return int(np.diff(self.reads.starts).max(initial=0))

    @cached_property
    def fan_in(self) -> float:
        """How many weights a row keeps, of those that keep any."""
        return len(self.reads.bases) / max(1, int(np.count_nonzero(np.diff(self.reads.starts))))

    def groups(self, rows: int) -> tuple[torch.Tensor, ...]:
        """Return `row_groups` on the device."""
        key = "groups", rows
        if key not in self.made:
            self.made[key] = tuple(_tensor(array, self.device) for array in row_groups(self.reads.starts, rows))
        return self.made[key]

    def segments(self, weights: int) -> tuple[torch.Tensor, ...]:
        """Return `segments` on the device."""
        key = "segments", weights
        if key not in self.made:
            self.made[key] = tuple(_tensor(array, self.device) for array in segments(self.reads.starts, weights))
        return self.made[key]


def _tensor(array: NDArray[np.integer], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _tables(plan: Plan, device: torch.device) -> tuple[Table, Table, torch.Tensor]:
    key = "gather", device
    if key not in plan.made:
        forward, backward = Table.of(linear_reads(plan), device), Table.of(transposed_reads(plan), device)
        plan.made[key] = forward, backward, _tensor(plan.to_transposed, device)
    return plan.made[key]


def weighted_sums(values: torch.Tensor, inputs: torch.Tensor, table: Table, runs: Runs) -> torch.Tensor:
    """Return the weighted sums of runs [rows, runs, length · width], in the inputs' type.

    Args:
        values: [kept], in the order of the table.
        inputs: [..., width] contiguous, from `padded`.
        table: which entries each row reads.
        runs: how a row is laid out.
    """
    width, rows = inputs.shape[-1], len(table.starts) - 1
    shape = rows, runs.count, runs.length * width
    if not len(values) or 0 in shape:
        return inputs.new_zeros(shape)
    tile = sum_tile(table.fan_in, shape[2], inputs.element_size())
    groups, longest = table.groups(tile.rows)
    tiles = -(-shape[2] // tile.batch)
    programs = len(longest) * tiles * runs.count
    parts = parts_of(programs, -(-table.longest // tile.weights))
    outputs = inputs.new_empty(shape) if parts == 1 else values.new_empty(parts, *shape, dtype=torch.float32)
    with on(inputs.device):
        gather_sums[(programs * parts,)](
            inputs,
            values.contiguous(),
            table.bases,
            table.starts,
            groups,
            longest,
            outputs,
            len(longest),
            tiles,
            rows,
            runs.count,
            runs.length,
            runs.step,
            width // alignment(width),
            ROWS=tile.rows,
            WEIGHTS=tile.weights,
            BATCH=tile.batch,
            PARTS=parts,
            ALIGN=alignment(width),
            num_warps=tile.warps,
            **LAUNCH,
        )
    return outputs if parts == 1 else outputs.sum(0).to(inputs.dtype)


def gradients_of_weights(inputs: torch.Tensor, gradients: torch.Tensor, table: Table, runs: Runs) -> torch.Tensor:
    """Return the gradients of the values [kept], float32.

    Args:
        inputs: [..., width] contiguous, from `padded`.
        gradients: of the outputs, [rows, runs, ≥ length, width] or [rows, runs, width] where a run has one place;
            whole places apart from each other.
        table: which entries each row reads.
        runs: how a row is laid out.
    """
    width, kept = inputs.shape[-1], len(table.bases)
    numbers = runs.length * width
    if not kept or not numbers * runs.count:
        return inputs.new_zeros(kept, dtype=torch.float32)
    tile = gradient_tile(table.fan_in, numbers, inputs.element_size())
    rows, firsts = table.segments(tile.weights)
    tiles = -(-numbers // tile.batch)
    parts = parts_of(len(rows), tiles * runs.count)
    outputs = inputs.new_empty(parts, kept, dtype=torch.float32)
    with on(inputs.device):
        gather_gradients[(len(rows) * parts,)](
            inputs,
            gradients,
            table.bases,
            table.starts,
            rows,
            firsts,
            outputs,
            len(rows),
            tiles,
            kept,
            runs.count,
            runs.length,
            runs.step,
            gradients.stride(0) // width,
            gradients.stride(1) // width,
            width // alignment(width),
            WEIGHTS=tile.weights,
            BATCH=tile.batch,
            PARTS=parts,
            ALIGN=alignment(width),
            num_warps=tile.warps,
            **LAUNCH,
        )
    return outputs[0] if parts == 1 else outputs.sum(0)
