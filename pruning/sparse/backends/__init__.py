"""Backends: ways to multiply a sparse matrix, one file each, found by itself.

    outputs [out, B] = W · inputs [in, B],   W being `values` [kept] at the plan's mask and 0 elsewhere

Every backend is differentiable in values and inputs, and equals the masked dense product up to rounding. Inputs and
outputs may have any strides: a batch-major activation [B, in] is handed over as its transposed view, and a backend that
wants contiguous features pays for the copy itself, so that a measurement sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pruning.registry import Registry, summary_of
from pruning.sparse.plans.cost import Machine
from pruning.sparse.plans.plan import Plan

Product = Callable[[torch.Tensor, torch.Tensor, Plan], torch.Tensor]


@dataclass(frozen=True)
class Backend:
    """One way to multiply.

    Attributes:
        product: `product(values [kept], inputs [in, B], plan) -> [out, B]`.
        runs: whether it can multiply tensors of this type on this device; cheap, and true only where it really can.
        seconds: the cost model: `seconds(plan, batch, machine)` of a forward pass. Only ratios matter.
    """

    product: Product
    runs: Callable[[torch.device, torch.dtype], bool]
    seconds: Callable[[Plan, int, Machine], float]


BACKENDS: Registry[Backend] = Registry("sparse backend", "pruning.sparse.backends", listed="backends")


def backend(
    name: str,
    *,
    runs: Callable[[torch.device, torch.dtype], bool],
    seconds: Callable[[Plan, int, Machine], float],
    source: str,
) -> Callable[[Product], Product]:
    """Register a product under a name; its docstring's first line is its summary."""

    def register(product: Product) -> Product:
        BACKENDS.add(name, Backend(product, runs, seconds), summary_of(product), source)
        return product

    return register
