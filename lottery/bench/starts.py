"""How long it takes to draw and to report on the start of a sparse network, and how much memory."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lottery.bench import Report, benchmark, row
from lottery.state.counts import check_count
from lottery.state.machine.bars import with_bar
from pruning.initializers import draw, get_initializer
from pruning.repairs import get_repair, repaired
from pruning.starts.tensor import Layout, Tensor
from pruning.starts.torch_tensors import torch_tensors

WIDTH, DEPTH = 2048, 6
LARGE, SPARSE = 4096, 0.05


def _wide() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _report(init: str) -> None:
    from lottery.studies.starting.starting import start

    rng = np.random.default_rng(0)
    data = rng.standard_normal((256, WIDTH), np.float32), rng.integers(0, 10, 256)
    str(start(lambda seed: _wide(), data, init=init, density=0.1, scope="layer"))


def _dense() -> None:
    for layer in _wide().modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)


def _exact() -> None:
    keep = np.zeros((LARGE, LARGE), bool)
    keep.reshape(-1)[: round(SPARSE * keep.size)] = True
    draw([Tensor("w", keep, Layout(keep.shape, (), (0,), (1,)))], get_initializer("exact-orthogonal"), 0)


def _repair(model: str, shape: tuple[int, ...]) -> None:
    from lottery.networks.models import MODELS

    torch.manual_seed(0)
    network = MODELS[model].value(shape, 10)
    rng = np.random.default_rng(0)
    keep = {name: rng.random(p.shape) < 0.1 for name, p in network.named_parameters() if p.ndim > 1}
    tensors = [each.tensor for each in torch_tensors(network, keep)]
    values = {name: p.detach().numpy() for name, p in network.named_parameters()}
    repaired(tensors, values, get_repair("isometry", {"gain": 1.0}))


CASES: Mapping[str, Callable[[], None]] = {
    "torch.nn.init.orthogonal_, dense, 25 million weights": _dense,
    "unit-scaled at 10 %, drawn and reported on, 25 million": lambda: _report("unit-scaled"),
    "orthogonal at 10 %, drawn and reported on, 25 million": lambda: _report("orthogonal"),
    "exact-orthogonal 4096 × 4096 at 5 %": _exact,
    "isometry of LeNet-300-100 at 10 %": lambda: _repair("lenet-300-100", (1, 28, 28)),
    "isometry of ResNet-20 at 10 %": lambda: _repair("resnet-20", (3, 32, 32)),
}


@dataclass(frozen=True)
class _Taken:
    seconds: float
    peak_mib: float


@benchmark("init", source="against torch.nn.init.orthogonal_ on the same shapes")
def bench_init(data: str, repeats: int, device: str) -> Report:
    """Seconds to draw and report on the start of a sparse network, and the peak memory of its process.

    Each case runs in a process of its own, which imports everything first; its peak memory holds those imports. The
    speed-up is against PyTorch's dense orthogonal initialization of 25 million weights, which only draws.

    Args:
        data: not read; numbers are random.
        repeats: timed runs of each.
        device: not used: starts are drawn on the CPU.
    """
    del data, device
    check_count("repeats", repeats)
    taken: dict[str, list[_Taken]] = {name: [] for name in CASES}
    for _ in with_bar(range(repeats), "rounds"):
        for name in CASES:
            taken[name].append(_alone(name))
    seconds = {name: [each.seconds for each in runs] for name, runs in taken.items()}
    peaks = {name: statistics.median(each.peak_mib for each in runs) for name, runs in taken.items()}
    baseline = seconds[next(iter(CASES))]
    facts = {"device": "cpu", "threads": torch.get_num_threads(), "precision": "float32, orthogonal in float64"}
    rows = [row(name, "start", found, baseline, peak_mib=peaks[name], **facts) for name, found in seconds.items()]
    memory = "; ".join(f"{name.partition(',')[0]} {peak:,.0f} MiB" for name, peak in peaks.items())
    note = f"cpu, {facts['threads']} threads, median of {repeats}; peak memory of the process: {memory}"
    return Report(rows, "start", note)


def _alone(name: str) -> _Taken:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, name).result()


def _measured(name: str) -> _Taken:
    import lottery.studies.starting.starting  # noqa: F401

    began = time.perf_counter()
    CASES[name]()
    seconds = time.perf_counter() - began
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return _Taken(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
