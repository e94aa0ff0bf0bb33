"""Where sparsity pays: densities × shapes × batches × precisions, against the best dense product of the same."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lottery.bench import Report, benchmark, compared
from lottery.bench.sparse_figure import speedup_figure
from lottery.networks.models import MODELS
from lottery.state.counts import check_count
from lottery.state.machine.bars import with_bar
from lottery.state.machine.device import choose_device
from pruning.mask import Mask
from pruning.sparse.backends import BACKENDS
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.timing import fastest, race, rounds
from pruning.sparse.module import sparse_module
from pruning.sparse.weights.weight import SparseWeight
from pruning.torch_modules import apply_mask, hold_mask, prunable

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
SHAPES = ((784, 300), (1024, 1024), (4096, 4096))
BATCHES = (1, 8, 64, 128, 512, 1024, 4096)
TRAINING = (1024, 1024, 512)
NETWORK, NETWORK_BATCHES = "lenet-300-100", (128, 1024)
# Roughly how long each way is timed in one cell of the table.
_SECONDS = 0.1
_CHOICE_SECONDS = 0.03


@dataclass(frozen=True)
class Cell:
    """One product of the table.

    Attributes:
        inputs: the inputs of the layer.
        outputs: the outputs of the layer.
        batch: examples.
        density: fraction of the weights that stay, at random.
        precision: `float32`, `tf32` or `bfloat16`.
    """

    inputs: int
    outputs: int
    batch: int
    density: float
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


@benchmark("sparse", source="against the better of F.linear and W @ X, masked dense, at the same precision")
def bench_sparse(data: str, repeats: int, device: str) -> Report:
    """Seconds of a sparse product of random masks, of LeNet-300-100 as a whole, and of a training step.

    For each cell the dispatcher's few candidates are timed once and the winner is taken, as `ticket.sparse` does; then
    the winner and dense are timed afresh, in turn. Dense is the better of two layouts; what the winner reads lies
    feature by feature, as between the layers of a network. Where dense won, the row says so and its speed-up is 1.

    Args:
        data: not used: masks and activations are random (real tickets: `lottery bench sparse TICKET`).
        repeats: the fewest timed rounds of each cell; the median counts.
        device: as for `lottery prune`.
    """
    check_count("repeats", repeats)
    place = choose_device(device)
    cells = list(_cells(place))
    rows = [_measured(cell, place, repeats) for cell in with_bar(cells, "products")]
    rows += [_training(density, place, repeats) for density in with_bar((0.1, 0.05, 0.02), "training")]
    rows += [
        _network(batch, d, place, repeats) for batch in NETWORK_BATCHES for d in with_bar((0.1, 0.05, 0.02), "LeNet")
    ]
    slower = [row for row in rows if row["speedup"] < 1 / 1.05 and row["told"] != "cannot tell"]
    doubtful = [row for row in rows if row["told"] == "cannot tell"]
    note = (
        f"{place}, {torch.get_num_threads()} threads; random masks; median of at least {repeats} rounds; speed-up "
        "against the best dense product of the same precision (its rate is in the row); "
        f"{len(slower)} of {len(rows)} rows are slower than 1.05 of dense; {len(doubtful)} cannot be told from it on "
        "this machine now (the middle halves of the timings meet)"
    )
    return Report(rows, "run", note, speedup_figure)


def _cells(device: torch.device) -> Iterator[Cell]:
    for precision in _precisions(device):
        for inputs, outputs in SHAPES:
            for batch in BATCHES:
                for density in DENSITIES:
                    yield Cell(inputs, outputs, batch, density, precision)


def _precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return ["float32", "tf32", "bfloat16"]
    # without hardware for it a dense bfloat16 product is a hundred times slower, and beating it means nothing
    return ["float32", "bfloat16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ["float32"]


def _measured(cell: Cell, device: torch.device, repeats: int) -> dict[str, Any]:
    weight, dense = _weights(cell.outputs, cell.inputs, cell.density, cell.dtype, device)
    generator = torch.Generator().manual_seed(1)
    by_batch = torch.randn(cell.batch, cell.inputs, generator=generator).to(cell.dtype).to(device)
    by_feature = by_batch.t().contiguous()
    with torch.no_grad(), _tf32(cell.precision == "tf32"):
        best = {"F.linear": lambda: F.linear(by_batch, dense), "W @ X": lambda: dense @ by_feature}
        costs = weight.options(by_feature.t())
        ranked = sorted(
            (name for name in costs if name != "dense" and costs[name] < float("inf")), key=costs.__getitem__
        )

        def product(name: str) -> Callable[[], object]:
            run = BACKENDS[name].value.product
            return lambda: run(weight.values, by_feature, weight.plan)

        first = race(best, device, _CHOICE_SECONDS)
        dense_name = min(best, key=first.__getitem__)
        rivals = {"dense": best[dense_name], **{name: product(name) for name in ranked[:2]}}
        winner, _ = fastest(rivals, "dense", device, _CHOICE_SECONDS)
        runs = {"dense": best[dense_name]} | ({} if winner == "dense" else {winner: product(winner)})
        taken = rounds(runs, device, _SECONDS, repeats)
    flops = 2.0 * cell.inputs * cell.outputs * cell.batch
    what = f"{cell.inputs}→{cell.outputs}, batch {cell.batch}, {cell.density:.0%}, {cell.precision}"
    return _row(
        what,
        taken["dense"],
        taken[winner],
        winner,
        kind="product",
        device=str(device),
        shape=[cell.inputs, cell.outputs],
        batch=cell.batch,
        density=cell.density,
        precision=cell.precision,
        dense_way=dense_name,
        dense_gflops=flops / statistics.median(taken["dense"]) / 1e9,
    )


@functools.lru_cache(maxsize=len(DENSITIES))
def _weights(
    outputs: int, inputs: int, density: float, dtype: torch.dtype, device: torch.device
) -> tuple[SparseWeight, torch.Tensor]:
    """Return a random sparse weight and the same one dense; one shape at all densities is kept, with its plans."""
    keep = np.random.default_rng(0).random((outputs, inputs)) < density
    dense = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)).to(dtype)
    dense.masked_fill_(torch.from_numpy(~keep), 0)
    return SparseWeight(dense, keep).to(device).requires_grad_(False), dense.to(device)


def _training(density: float, device: torch.device, repeats: int) -> dict[str, Any]:
    """Forward, and back to weights and inputs, of one layer."""
    inputs, outputs, batch = TRAINING
    generator = torch.Generator().manual_seed(0)
    keep = np.random.default_rng(0).random((outputs, inputs)) < density
    layer = torch.nn.Linear(inputs, outputs, bias=False)
    weight = SparseWeight(apply_mask(layer, Mask({"weight": keep})).weight, keep).to(device)
    layer = hold_mask(layer.to(device), Mask({"weight": keep}))
    examples = torch.randn(batch, inputs, generator=generator).to(device)
    columns = examples.t().contiguous().t()

    def step(module: torch.nn.Module, given: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            leaf = given.detach().requires_grad_()
            outputs = module(leaf)
            return torch.autograd.backward(outputs, outputs.detach())

        return run

    costs = weight.options(columns)
    weight.backend = min((name for name in costs if name not in ("dense", "compact")), key=costs.__getitem__)
    taken = rounds({"dense": step(layer, examples), "sparse": step(weight, columns)}, device, _SECONDS, repeats)
    return _row(
        f"training step {inputs}→{outputs}, batch {batch}, {density:.0%}",
        taken["dense"],
        taken["sparse"],
        weight.backend,
        kind="training",
        device=str(device),
        shape=[inputs, outputs],
        batch=batch,
        density=density,
        precision="float32",
    )


def _network(batch: int, density: float, device: torch.device, repeats: int) -> dict[str, Any]:
    """A whole network, everything included: transposing the images, biases, activations, Python."""
    torch.manual_seed(0)
    network = MODELS[NETWORK].value((1, 28, 28), 10).to(device).eval()
    rng = np.random.default_rng(0)
    mask = Mask({name: rng.random(shape) < density for name, shape in prunable(network).items()})
    apply_mask(network, mask)
    images = torch.randn(batch, 1, 28, 28).to(device)
    module = sparse_module(network, mask, images, choosing=Choosing(cache=None)).eval()
    with torch.no_grad():
        taken = rounds({"dense": lambda: network(images), "sparse": lambda: module(images)}, device, _SECONDS, repeats)
    backends = sorted({layer.backend for layer in module.report.layers})
    return _row(
        f"{NETWORK} as a whole, batch {batch}, {density:.0%}",
        taken["dense"],
        taken["sparse"],
        "+".join(backends),
        kind="network",
        device=str(device),
        batch=batch,
        density=density,
        precision="float32",
    )


def _row(what: str, dense: list[float], sparse: list[float], backend: str, **facts: Any) -> dict[str, Any]:
    return {
        "what": f"{what}: {backend}",
        "seconds_per_run": statistics.median(sparse),
        **compared(sparse, dense),
        "dense_seconds": statistics.median(dense),
        "backend": backend,
        **facts,
    }


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products round to TF32, or not, while the block runs."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
