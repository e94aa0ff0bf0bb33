"""How fast a search trains: LeNet-300-100 on 60,000 images, an epoch at a time, masks included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from lottery.bench import Report, benchmark, row, timed_rounds
from lottery.bench.loops import in_jax
from lottery.data import Data
from lottery.data.datasets import load_data
from lottery.data.parts import Parts, Tensors, prepare
from lottery.networks.sources.choosing import torch_source
from lottery.networks.sources.source import ModelSource
from lottery.state.tensors import load_state
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.torch_modules import apply_mask, prunable
from pruning.watch import Silent

BATCH = 128


@dataclass(frozen=True)
class Case:
    """What is timed: a network of one density on one data set."""

    source: ModelSource
    parts: Parts
    setup: Setup
    job: Job


@benchmark("search", source="against a DataLoader loop that multiplies weights by masks")
def bench_search(data: str, repeats: int, device: str) -> Report:
    """Seconds an epoch of LeNet-300-100 by gradient descent, masks included.

    One epoch: SGD, batch 128, then an evaluation of the test images. The usual loop reads a `DataLoader` item by
    item, multiplies weights by masks after each step and evaluates the same way. The matrix products alone are the
    arithmetic limit of the dense formulation on this machine. Beside them, in JAX: the trainer `optax`, and two
    jitted loops written by hand, with the same steps; and the trainer `es`, for as many examples as one epoch has
    (each seen by one member of a population). All run in turn in one process.

    Args:
        data: a data set or a path; `synthetic` makes 60,000 + 10,000 random images of 28×28 pixels.
        repeats: timed epochs of each.
        device: as for `lottery prune`.
    """
    case = _case(data, device)
    job, parts = case.job, case.parts
    runs: dict[str, Callable[[], float]] = {
        "this trainer, density 100 %": lambda: _ours(case, 1.0),
        "this trainer, density 21 %": lambda: _ours(case, 0.21),
        "DataLoader loop, density 21 %": lambda: _usual(case, 0.21),
        "matrix products alone": lambda: _products(case),
        "trainer optax, density 21 %": in_jax.by_optax(case.source, parts, job, _mask(case, 0.21), device),
        "by hand, one jitted program, density 21 %": in_jax.in_one_program(parts, job, _mask(case, 0.21)),
        "by hand, a jitted step at a time, density 21 %": in_jax.step_by_step(parts, job, _mask(case, 0.21)),
        "trainer es, density 21 %": in_jax.by_evolution(case.source, parts, job, _mask(case, 0.21), device),
    }
    seconds = timed_rounds(runs, repeats)
    facts = {
        "precision": "float32",
        "batch": BATCH,
        "examples": len(case.parts.train),
        "device": case.setup.device,
        "threads": torch.get_num_threads(),
    }
    baseline = seconds["DataLoader loop, density 21 %"]
    note = (
        f"{facts['examples']:,} images, batch {BATCH}, float32, {case.setup.device}, {facts['threads']} threads; "
        f"median of {repeats} epochs, evaluation of the test images included; speed-up against the DataLoader loop"
    )
    return Report([row(name, "epoch", taken, baseline, **facts) for name, taken in seconds.items()], "epoch", note)


def _case(data: str, device: str) -> Case:
    given = _synthetic() if data == "synthetic" else load_data(data)
    # All training images train, as in the published timings; a sliver of the test part stands in for validation.
    raw = prepare(Data(given.train, validation=given.test, test=given.test, name=given.name), seed=0)
    assert isinstance(raw.train, Tensors)
    assert isinstance(raw.test, Tensors)
    sliver = Tensors(raw.test.inputs[:BATCH], raw.test.targets[:BATCH])
    parts = Parts(raw.train, sliver, raw.test, raw.name)
    source = torch_source("lenet-300-100", parts, "model")
    steps = len(raw.train) // BATCH
    config = GDConfig(optimizer="sgd", lr=0.1, batch_size=BATCH, steps=steps, eval_every=steps, device=device)
    ready = setup(Ask(source, parts, config, None, None, Silent(), 0))
    mask = Mask.dense(prunable(source.build(0)))
    return Case(source, parts, ready, Job(source.initial_state(0), mask, 0, Budget(0, steps)))


def _synthetic() -> Data:
    rng = np.random.Generator(np.random.PCG64(0))
    x = rng.standard_normal((70_000, 1, 28, 28), np.float32)
    y = rng.integers(0, 10, 70_000)
    return Data(train=(x[:60_000], y[:60_000]), test=(x[60_000:], y[60_000:]), name="synthetic")


def _mask(case: Case, density: float) -> Mask:
    rng = np.random.Generator(np.random.PCG64(1))
    return Mask({name: rng.random(shape) < density for name, shape in case.job.mask.shapes().items()})


def _ours(case: Case, density: float) -> float:
    mask = case.job.mask if density == 1 else _mask(case, density)
    job = Job(case.job.params, mask, 0, case.job.budget)
    began = time.perf_counter()
    list(case.setup.trainer.train([job], frozenset()))
    return time.perf_counter() - began


def _usual(case: Case, density: float) -> float:
    """Time one epoch as reference implementations of the field run it."""
    train, test = case.parts.train, case.parts.test
    assert isinstance(train, Tensors)
    assert isinstance(test, Tensors)
    device = torch.device("cpu" if case.setup.device == "cpu" else "cuda")
    model = case.source.build(0)
    load_state(model, case.job.params)
    mask = _mask(case, density)
    model = apply_mask(model, mask).to(device)
    keeps = {name: torch.from_numpy(keep.copy()).to(device) for name, keep in mask.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(train.inputs, train.targets), BATCH, shuffle=True)
    began = time.perf_counter()
    for inputs, targets in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs.to(device)), targets.to(device)).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in keeps:
                    parameter.mul_(keeps[name])
    with torch.no_grad():
        for inputs, targets in DataLoader(TensorDataset(test.inputs, test.targets), BATCH):
            (model(inputs.to(device)).argmax(1) == targets.to(device)).sum().item()
    return time.perf_counter() - began


def _products(case: Case) -> float:
    """Time the matrix products of one epoch and its evaluation, with nothing around them."""
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
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
