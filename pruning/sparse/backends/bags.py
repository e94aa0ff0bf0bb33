"""Gathered rows on the CPU: an output is a weighted sum of a few rows of activations, which is what a bag of
embeddings is.

    forward  Y [out, B] = bags of rows of X [in, B]     dX = bags of rows of dY, by the transpose
             d values   = dY · Xᵀ at the mask, and nowhere else

PyTorch sums bags with code that it generates for the processor at hand (FBGEMM): accumulators stay in registers, rows
are fetched ahead. That is two to three times as fast as a product with a compressed matrix from a library, where the
batch fills a vector (measured: `results/sparse-forward`).
"""

from __future__ import annotations

import torch

from pruning.sparse.backends import backend
from pruning.sparse.plans.by_rows import by_rows
from pruning.sparse.plans.cost import Machine, sparse_seconds
from pruning.sparse.plans.pattern import RowPattern, RowPatternBothWays, linear_pattern
from pruning.sparse.plans.plan import Plan

# Activations that do not fit into a core's cache are taken in pieces, of at least `_PIECE` examples, if they must be
# copied anyway or every row is read often enough to pay for the copy.
_CACHE, _PIECE, _OFTEN = 1 << 20, 64, 32


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype in (torch.float32, torch.bfloat16, torch.float16)


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    return sparse_seconds(*plan.shape, plan.kept, batch, rates) + 5 * rates.call


@backend("bags", runs=_runs, seconds=_seconds, source="FBGEMM (arXiv 2101.05615), through torch.embedding_bag")
def bags(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Weighted sums of gathered rows of activations, on the CPU.

    An input that no weight reads is never read: what stands there, infinities too, has no effect.

    >>> bags(torch.tensor([2.0, 3.0]), torch.ones(2, 1), Plan.of([[1, 0], [0, 1], [0, 0]])).flatten().tolist()
    [2.0, 3.0, 0.0]
    """
    return gathered(values, inputs, linear_pattern(plan, inputs.device))


def gathered(entries: torch.Tensor, inputs: torch.Tensor, pattern: RowPatternBothWays) -> torch.Tensor:
    """Return the product of a sparse matrix, given by its entries row by row, and inputs [columns, B].

    >>> pattern = linear_pattern(Plan.of([[1, 0], [1, 1]]), torch.device("cpu"))
    >>> gathered(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([[1.0], [10.0]]), pattern).tolist()
    [[2.0], [43.0]]
    """
    return by_rows(_sums, entries, inputs, pattern)


def _sums(entries: torch.Tensor, inputs: torch.Tensor, pattern: RowPattern) -> torch.Tensor:
    """Return the matrix [rows, B]; one that is feature-major in memory."""
    batch = inputs.shape[1]
    if not batch or not len(entries):
        return inputs.new_zeros(pattern.shape[0], batch)
    fits = _CACHE // max(inputs.shape[0] * inputs.element_size(), 1)
    piece = max(_PIECE, 1 << fits.bit_length() - 1 if fits else 0)
    if batch <= piece or (inputs.is_contiguous() and len(entries) <= _OFTEN * inputs.shape[0]):
        return _bag(entries, feature_major(inputs), pattern)
    outputs = inputs.new_empty(pattern.shape[0], batch)
    for start in range(0, batch, piece):
        part = slice(start, start + piece)
        outputs[:, part] = _bag(entries, feature_major(inputs[:, part]), pattern)
    return outputs


def feature_major(inputs: torch.Tensor) -> torch.Tensor:
    """Return inputs [in, B] with the examples of a feature side by side in memory.

    PyTorch turns a matrix block by block on one core. An elementwise product does it on all cores, and is the faster
    unless examples lie at a distance of a multiple of 1 KiB: they then fight for the same lines of the cache.

    >>> examples = torch.arange(6.0).reshape(3, 2)
    >>> turned = feature_major(examples.t())
    >>> torch.equal(turned, examples.t()), turned.stride()
    (True, (3, 1))
    """
    if inputs.is_contiguous():
        return inputs
    if inputs.stride(0) != 1 or inputs.stride(1) * inputs.element_size() % 1024 == 0:
        return inputs.contiguous()
    return torch.mul(inputs, 1, out=inputs.new_empty(inputs.shape))


def _bag(entries: torch.Tensor, inputs: torch.Tensor, pattern: RowPattern) -> torch.Tensor:
    return torch.embedding_bag(inputs, pattern.columns, pattern.starts, False, 0, False, entries, True)[0]
