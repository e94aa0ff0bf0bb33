"""The masked dense product."""

from __future__ import annotations

import torch

from pruning.sparse.backends import backend
from pruning.sparse.plans.cost import Machine, dense_seconds
from pruning.sparse.plans.dense import dense_matrix
from pruning.sparse.plans.plan import Plan


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    return dense_seconds(*plan.shape, batch, rates)


@backend("dense", runs=_runs, seconds=_seconds, source="BLAS")
def dense(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """A product with the matrix that holds 0 where nothing is kept.

    >>> dense(torch.tensor([2.0]), torch.ones(2, 1), Plan.of([[0, 1]])).tolist()
    [[2.0]]
    """
    return dense_matrix(values, plan) @ inputs
