"""Compressed sparse rows on the CPU, multiplied by MKL: the fastest for one or a few examples, and for float64."""

from __future__ import annotations

import torch

from pruning.sparse.backends import backend
from pruning.sparse.backends.bags import feature_major
from pruning.sparse.plans.by_rows import by_rows
from pruning.sparse.plans.cost import Machine
from pruning.sparse.plans.pattern import RowPattern, linear_pattern
from pruning.sparse.plans.plan import Plan

# The matrix is put together, and Python is in between.
_CALLS = 6


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype in (torch.float32, torch.float64) and torch.backends.mkl.is_available()


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    # Half the rate of gathered rows in a large batch, and no vector to fill in a small one.
    arithmetic = 2.0 * plan.kept * batch / (rates.sparse / 2)
    moved = rates.moved(8.0 * plan.kept + 4.0 * (plan.shape[0] + plan.shape[1]) * batch)
    return _CALLS * rates.call + max(arithmetic, moved)


@backend("csr", runs=_runs, seconds=_seconds, source="MKL's sparse BLAS, through torch.sparse_csr_tensor")
def csr(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Compressed sparse rows times activations, on the CPU.

    An input that no weight reads is never read: what stands there, infinities too, has no effect.

    >>> csr(torch.tensor([2.0, 3.0]), torch.ones(2, 1), Plan.of([[1, 0], [0, 1], [0, 0]])).flatten().tolist()
    [2.0, 3.0, 0.0]
    """
    return by_rows(_product, values, inputs, linear_pattern(plan, inputs.device))


def _product(values: torch.Tensor, inputs: torch.Tensor, pattern: RowPattern) -> torch.Tensor:
    if not len(values) or not inputs.shape[1]:
        return inputs.new_zeros(pattern.shape[0], inputs.shape[1])
    matrix = torch.sparse_csr_tensor(
        pattern.starts, pattern.columns, values.detach(), pattern.shape, check_invariants=False
    )
    if inputs.shape[1] == 1:
        return torch.mv(matrix, inputs.reshape(-1)).unsqueeze(1)
    return matrix @ feature_major(inputs)
