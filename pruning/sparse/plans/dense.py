"""The dense matrix of a plan."""

from __future__ import annotations

import torch

from pruning.sparse.plans.plan import Plan


def dense_matrix(values: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the matrix [out, in] of a plan: values at its mask, 0 elsewhere; differentiable.

    >>> dense_matrix(torch.tensor([5.0]), Plan.of([[0, 1]])).tolist()
    [[0.0, 5.0]]
    """
    key = "positions", values.device
    if key not in plan.made:
        plan.made[key] = torch.from_numpy(plan.positions).to(values.device)
    flat = values.new_zeros(plan.shape[0] * plan.shape[1])
    return flat.index_copy(0, plan.made[key], values).reshape(plan.shape)
