"""What a training step of a layer costs, dense and sparse, by rates that were measured once.

As with the compiled steps of fully connected networks, the decision is a function of the mask, of what the layer gets
and of the rates that the run was begun with: rounding depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lottery.trainers.gd.chain.paths import Rates
from pruning.sparse.weights.kernel import SparseKernel
from pruning.sparse.weights.weight import Sparse

# A sparse layer is taken where its step takes less than this share of the dense one's: an estimate may be off.
_SHARE = 0.8
# Seconds that a sparse product, forward and backward, takes however small it is, beyond a dense one.
_CALLS = 6e-5
# Numbers per second that are packed into blocks of examples or taken out of them; images go through memory.
_PACKED, _PACKED_IMAGES = 4e9, 1e9
# A block of activations with more features lies in a farther cache, and sparse products take so many times as long.
_NEAR, _FARTHER = 2048, 2.5
# By how much a dense convolution is faster than the dense product that rates were measured with.
_CONVOLUTION = 1.2
# Weights per second whose gradients are masked and that an optimizer moves.
_MOVED = 7e8


@dataclass(frozen=True)
class Use:
    """One product of a layer with activations in a forward pass.

    Attributes:
        shape: of the activations.
        below: whether they need a gradient.
        runs: whether there is a sparse product that takes them.
    """

    shape: tuple[int, ...]
    below: bool
    runs: bool


def pays(part: Sparse, uses: Iterable[Use], rates: Rates) -> bool:
    """Say whether a step with the survivors of a weight alone is the cheaper one.

    Args:
        part: the weight.
        uses: its products in one forward pass.
        rates: of the machine.

    >>> import numpy as np, torch
    >>> from pruning.sparse.weights.weight import SparseWeight
    >>> rates = Rates(dense=1e11, sums=5e10, slopes=2e10, cores=1)
    >>> def thin(density):
    ...     return SparseWeight(torch.ones(512, 512), np.random.default_rng(0).random((512, 512)) < density)
    >>> [pays(thin(density), [Use((64, 512), True, True)], rates) for density in (0.5, 0.05)]
    [False, True]
    """
    uses = list(uses)
    if not uses or not all(use.runs for use in uses):
        return False
    costs = [
        _of_kernel(part, use, rates) if isinstance(part, SparseKernel) else _of_matrix(part, use, rates) for use in uses
    ]
    (rows, columns), kept = part.plan.shape, part.plan.kept
    dense = sum(dense for dense, _ in costs) + rows * columns / _MOVED
    return sum(sparse for _, sparse in costs) + kept / _MOVED < _SHARE * dense


def may_pay(density: float, batch: int, rates: Rates) -> bool:
    """Say whether a layer of this density pays if products and moving weights were all that takes time.

    >>> rates = Rates(dense=1e11, sums=5e10, slopes=2e10, cores=1)
    >>> may_pay(0.5, 64, rates), may_pay(0.05, 64, rates)
    (False, True)
    """
    moved = 1.0 / _MOVED / batch
    costs = [_of_products(1.0, density, below, rates) for below in (False, True)]
    return any(sparse + density * moved < _SHARE * (dense + moved) for dense, sparse in costs)


def _of_products(size: float, kept: float, below: bool, rates: Rates) -> tuple[float, float]:
    """Return the seconds of the products of one example, dense and sparse."""
    dense = (3 if below else 2) * 2.0 * size / rates.dense
    return dense, 2.0 * kept * ((2 if below else 1) / rates.sums + 1 / rates.slopes)


def _of_matrix(part: Sparse, use: Use, rates: Rates) -> tuple[float, float]:
    rows, columns = part.plan.shape
    examples = 1
    for size in use.shape[:-1]:
        examples *= size
    dense, sparse = _of_products(rows * columns, part.plan.kept, use.below, rates)
    packed = 2.0 * (rows + columns) / _PACKED
    sparse *= _FARTHER if max(rows, columns) > _NEAR else 1.0
    return examples * dense, examples * (sparse + packed) + _CALLS


def _of_kernel(part: SparseKernel, use: Use, rates: Rates) -> tuple[float, float]:
    geometry = part.convolution.geometry
    pixels, outside = use.shape[2] * use.shape[3], 1
    for size in geometry.output((use.shape[2], use.shape[3])):
        outside *= size
    rows, columns = part.plan.shape
    dense, sparse = _of_products(rows * columns, part.plan.kept, use.below, rates)
    packed = 2.0 * (part.convolution.inputs * pixels + part.convolution.outputs * outside) / _PACKED_IMAGES
    return use.shape[0] * outside * dense / _CONVOLUTION, use.shape[0] * (outside * sparse + packed) + _CALLS
