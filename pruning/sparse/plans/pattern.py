"""The plan of a sparse matrix as PyTorch tensors on a device, made once for each device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pruning.sparse.plans.convolution_plan import ConvPlan, Pair
from pruning.sparse.plans.plan import Plan, Rows


@dataclass(frozen=True)
class RowPattern:
    """Where the entries of a sparse matrix lie, row by row; all tensors on one device.

    Attributes:
        shape: (rows, columns).
        starts: position of each row's first entry, and the number of entries [rows + 1], int32.
        columns: column of each entry, int32.
    """

    shape: Pair
    starts: torch.Tensor
    columns: torch.Tensor


@dataclass(frozen=True)
class RowPatternBothWays:
    """A pattern, the pattern of its transpose, and how entries are reordered from one to the other.

    Attributes:
        forward: the pattern.
        backward: the pattern of the transpose.
        order: `entries[order]` are the entries in the order of `backward`, int32.
    """

    forward: RowPattern
    backward: RowPattern
    order: torch.Tensor


def linear_pattern(plan: Plan, device: torch.device) -> RowPatternBothWays:
    """Return the pattern of a matrix and of its transpose on a device.

    >>> linear_pattern(Plan.of([[0, 1], [1, 1]]), torch.device("cpu")).order.tolist()
    [1, 0, 2]
    """
    key = "pattern", device
    if key not in plan.made:
        forward = _pattern(plan.rows, plan.shape, device)
        backward = _pattern(plan.transposed, (plan.shape[1], plan.shape[0]), device)
        plan.made[key] = RowPatternBothWays(forward, backward, _tensor(plan.to_transposed, device))
    return plan.made[key]


def convolution_pattern(plan: ConvPlan, size: Pair, device: torch.device) -> tuple[RowPatternBothWays, torch.Tensor]:
    """Return a convolution as a sparse matrix [out · H' · W', in · H · W], and which kept weight each entry is.

    Args:
        plan: the plan of the convolution.
        size: height and width of its input.
        device: where the tensors lie.
    """
    key = "convolution pattern", plan.geometry, size, device
    made = plan.weights.made
    if key not in made:
        taps, (down, right) = plan.taps(size), plan.geometry.output(size)
        shape = plan.outputs * down * right, plan.inputs * size[0] * size[1]
        forward = _pattern(Rows(taps.starts, taps.columns), shape, device)
        order = np.argsort(taps.columns, kind="stable").astype(np.int32)
        rows = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(taps.starts))
        starts = np.zeros(shape[1] + 1, np.int32)
        np.cumsum(np.bincount(taps.columns, minlength=shape[1]), out=starts[1:])
        backward = _pattern(Rows(starts, rows[order]), (shape[1], shape[0]), device)
        made[key] = RowPatternBothWays(forward, backward, _tensor(order, device)), _tensor(taps.source, device)
    return made[key]


def _pattern(rows: Rows, shape: Pair, device: torch.device) -> RowPattern:
    return RowPattern(shape, _tensor(rows.starts, device), _tensor(rows.columns, device))


def _tensor(array: NDArray[np.int32], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)
