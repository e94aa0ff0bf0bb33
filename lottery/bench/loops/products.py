"""The arithmetic limit: the matrix products of an epoch with nothing around them, and the machine's best rate."""

from __future__ import annotations

import time

import torch

from lottery.bench.loops.lenet import BATCH, Case
from lottery.data.parts import Tensors

_SIDE, _TIMES = 2048, 5


def products(case: Case) -> float:
    """Return the seconds of the dense products of one epoch and its evaluation."""
    train, test = case.parts.train, case.parts.test
    device = torch.device("cpu" if case.setup.device == "cpu" else "cuda")
    weights = [torch.from_numpy(case.job.params[name].copy()).to(device) for name in case.job.mask]
    inputs = [torch.ones(BATCH, weight.shape[1], device=device) for weight in weights]
    deltas = [torch.ones(BATCH, weight.shape[0], device=device) for weight in weights]
    began = time.perf_counter()
    for _ in range(len(train) // BATCH):
        for index, (x, weight, delta) in enumerate(zip(inputs, weights, deltas, strict=True)):
            torch.mm(x, weight.t())
            torch.mm(delta.t(), x)
            if index:  # nothing below the first layer wants a gradient
                torch.mm(delta, weight)
    for _ in range(len(test or ()) // BATCH):
        for x, weight in zip(inputs, weights, strict=True):
            torch.mm(x, weight.t())
    _wait(device)
    return time.perf_counter() - began


def operations(case: Case) -> float:
    """Return the floating-point operations of `products`."""
    assert isinstance(case.parts.train, Tensors)
    sizes = [case.job.params[name].size for name in case.job.mask]
    train = 3 * sum(sizes) - sizes[0]
    steps, tests = len(case.parts.train) // BATCH, len(case.parts.test or ()) // BATCH
    return 2.0 * BATCH * (steps * train + tests * sum(sizes))


def matrix_rate(device: torch.device) -> float:
    """Return the most floating-point operations per second of float32 products that this machine shows."""
    a = torch.ones(_SIDE, _SIDE, device=device)
    best = 0.0
    for _ in range(_TIMES):
        began = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        best = max(best, 2.0 * _SIDE**3 / (time.perf_counter() - began))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
