"""Gathered rows on CUDA: one multiplication for each kept weight and example."""

from __future__ import annotations

import torch

from pruning.sparse.backends import backend
from pruning.sparse.kernels import toolchain
from pruning.sparse.kernels.gather import gather_linear
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.plans.cost import Machine, sparse_seconds
from pruning.sparse.plans.plan import Plan


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return toolchain.runs(gather_sums, device) and dtype in toolchain.DTYPES


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    return sparse_seconds(*plan.shape, plan.kept, batch, rates)


@backend("gather", runs=_runs, seconds=_seconds, source="Gale et al. 2020 (arXiv 2006.10901), for its bound; Triton")
def gather(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Weighted sums of gathered rows of activations, on a CUDA device."""
    return gather_linear(values, inputs, plan)
