"""Ways to convolve with a sparse kernel, one file each, found by itself.

    outputs [N, out, H', W'] = inputs [N, in, H, W] convolved with `values` [kept] at the plan's mask

As with the backends of a matrix product: differentiable, equal to the masked dense convolution up to rounding, and
strides are free: a way that wants the examples side by side in memory pays for the copy itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pruning.registry import Registry, summary_of
from pruning.sparse.plans.convolution_plan import ConvPlan
from pruning.sparse.plans.cost import Machine

Convolve = Callable[[torch.Tensor, torch.Tensor, ConvPlan], torch.Tensor]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Convolution:
    """One way to convolve.

    Attributes:
        product: `product(values [kept], inputs [N, in, H, W], plan) -> [N, out, H', W']`.
        runs: whether it can convolve tensors of this type on this device.
        seconds: the cost model: `seconds(plan, (N, H, W), machine)` of a forward pass. Only ratios matter.
    """

    product: Convolve
    runs: Callable[[torch.device, torch.dtype], bool]
    seconds: Callable[[ConvPlan, Size, Machine], float]


CONVOLUTIONS: Registry[Convolution] = Registry(
    "sparse convolution", "pruning.sparse.convolutions", listed="convolutions"
)


def convolution(
    name: str,
    *,
    runs: Callable[[torch.device, torch.dtype], bool],
    seconds: Callable[[ConvPlan, Size, Machine], float],
    source: str,
) -> Callable[[Convolve], Convolve]:
    """Register a product under a name; its docstring's first line is its summary."""

    def register(product: Convolve) -> Convolve:
        CONVOLUTIONS.add(name, Convolution(product, runs, seconds), summary_of(product), source)
        return product

    return register
