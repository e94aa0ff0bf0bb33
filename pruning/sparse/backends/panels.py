"""Panels of rows on the tensor cores: rows that share their columns, of three heights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruning.sparse.backends import Product, backend
from pruning.sparse.kernels import toolchain
from pruning.sparse.kernels.panel_kernels import panel_products
from pruning.sparse.kernels.panel_plan import union_density
from pruning.sparse.kernels.panels import panel_linear
from pruning.sparse.plans.cost import Machine, dense_seconds
from pruning.sparse.plans.plan import Plan

# Of the rate of a dense product: `mma` at small heights, `wgmma` at 64. Modelled.
_SHARE = {16: 0.4, 32: 0.4, 64: 0.6}
_SOURCE = "row panels with a shared union of columns; Triton"


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return toolchain.runs(panel_products, device) and dtype in toolchain.DTYPES


def _seconds(height: int) -> Callable[[Plan, int, Machine], float]:
    def seconds(plan: Plan, batch: int, rates: Machine) -> float:
        rows, columns = plan.shape
        touched = union_density(plan, height) * columns
        dense = dense_seconds(rows, int(touched) + 1, max(batch, 16), rates) - rates.call
        return rates.call + dense / _SHARE[height]

    return seconds


def _product(height: int) -> Product:
    def product(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
        tf32 = inputs.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
        return panel_linear(values, inputs, plan, height=height, precision="tf32" if tf32 else "ieee")

    product.__doc__ = f"Panels of {height} rows on the tensor cores of a CUDA device, in its precision for products."
    return product


for _height in _SHARE:
    backend(f"panels-{_height}", runs=_runs, seconds=_seconds(_height), source=_SOURCE)(_product(_height))
