"""How fast masks are drawn: scoring and selection, what probes cost, controls that train stacked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from lottery.bench import Report, benchmark, row, timed_rounds
from lottery.data import Data
from lottery.data.datasets import load_data
from lottery.data.parts import Tensors, prepare
from lottery.networks.objectives.objective import call
from lottery.networks.sources.choosing import torch_source
from lottery.search.probes import TorchProber
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.criteria import get_criterion
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.selection import select
from pruning.torch_modules import prunable
from pruning.watch import Silent

# 25 million weights in the shapes of a large residual network: a few large tensors, many small ones.
SHAPES = {
    f"layer{i}.weight": shape for i, shape in enumerate([(2048, 2048)] * 5 + [(1024, 1024)] * 3 + [(512, 512)] * 4)
}
JOBS, STEPS, EXAMPLES = 15, 50, 1024


@dataclass(frozen=True)
class Group:
    """Things that are compared with one of them.

    Attributes:
        runs: by name, each returns its seconds.
        baseline: the name of the one that the others are compared with.
    """

    runs: Mapping[str, Callable[[], float]]
    baseline: str


@benchmark("methods", source="against torch.nn.utils.prune, plain passes, and one training after the other")
def bench_methods(data: str, repeats: int, device: str) -> Report:
    """Seconds to draw masks (25 million weights), to probe LeNet, and to train its controls stacked.

    Three groups, each against its own baseline, all in turn in one process: magnitude scores and exact global
    selection against `torch.nn.utils.prune.global_unstructured`; SNIP, one round of SynFlow and GraSP against one
    forward-backward pass of the same batch; controls of one level handed over in one piece against one after the other.

    Args:
        data: a data set or a path; its images are probed and trained on.
        repeats: timed runs of each.
        device: as for `lottery prune`.
    """
    ready, job, prober = _case("lenet-300-100", data, device)
    small, small_job, _ = _case("mlp", "digits", device)
    groups = (
        _selection(),
        _probes(prober, job),
        _stacked("LeNet-300-100", ready, job),
        _stacked("the digits MLP", small, small_job),
    )
    seconds = timed_rounds({name: run for group in groups for name, run in group.runs.items()}, repeats)
    facts = {"precision": "float32", "device": ready.device, "threads": torch.get_num_threads()}
    rows = [
        row(name, "run", seconds[name], seconds[group.baseline], against=group.baseline, **facts)
        for group in groups
        for name in group.runs
    ]
    note = (
        f"{ready.device}, {facts['threads']} threads, float32, median of {repeats}; speed-up within each group: masks "
        f"against torch.nn.utils.prune, probes against one forward-backward pass of {EXAMPLES:,} images (0.5x is two "
        f"passes), {JOBS} controls, {STEPS} steps each, against one after the other"
    )
    return Report(rows, "run", note)


def _selection() -> Group:
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    mask = Mask.dense(SHAPES)
    keep = mask.total // 5
    trained, job = Trained(params, []), Job(params, mask, 0, Budget(0, 0))

    def ours() -> float:
        began = time.perf_counter()
        select(get_criterion("magnitude").score(trained, job), mask, keep)
        return time.perf_counter() - began

    def usual() -> float:
        layers = [nn.Linear(*reversed(shape), bias=False) for shape in SHAPES.values()]
        for layer, value in zip(layers, params.values(), strict=True):
            layer.weight.data = torch.from_numpy(value.copy())
        began = time.perf_counter()
        prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=0.8)
        return time.perf_counter() - began

    usual_name = "torch.nn.utils.prune.global_unstructured"
    return Group({f"magnitude, global, {mask.total / 1e6:.0f} million weights": ours, usual_name: usual}, usual_name)


def _case(model: str, data: str, device: str) -> tuple[Setup, Job, TorchProber]:
    given = load_data(data)
    parts = prepare(Data(given.train, validation=given.test, name=given.name), seed=0)
    assert isinstance(parts.validation, Tensors)
    few = min(EXAMPLES, len(parts.validation))
    parts = replace(parts, validation=parts.validation.take(torch.arange(few)))
    source = torch_source(model, parts, "model")
    config = GDConfig(lr=1.2e-3, batch_size=64, steps=STEPS, eval_every=STEPS, device=device)
    ready = setup(Ask(source, parts, config, None, None, Silent(), 0))
    mask = Mask.dense(prunable(source.build(0)))
    job = Job(source.initial_state(0), mask, 0, Budget(0, STEPS))
    trainer = ready.trainer
    assert isinstance(trainer, GDTrainer)
    prober = TorchProber(
        model=source.build(0),
        part=trainer.parts.train,
        loss=trainer.objective.loss,
        input_shape=parts.input_shape,
        device=trainer.device,
        examples=EXAMPLES,
        steps=1,
        lr=None,
        batch_size=64,
    )
    return ready, job, prober


def _probes(prober: TorchProber, job: Job) -> Group:
    look = prober.prepared(job, 0.5)

    def plain() -> float:
        inputs, targets = look.examples
        began = time.perf_counter()
        loss = prober.loss(call(look.model, inputs), targets)
        torch.autograd.grad(loss, list(look.weights.values()))
        if prober.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def probing(need: str) -> Callable[[], float]:
        def run() -> float:
            fresh = prober.prepared(job, 0.5)
            began = time.perf_counter()
            prober.see(need, fresh)
            return time.perf_counter() - began

        return run

    named = {"SNIP": "gradients", "SynFlow, one round": "synflow", "GraSP": "hessian_gradients"}
    baseline = "a forward-backward pass"
    return Group({baseline: plain, **{name: probing(need) for name, need in named.items()}}, baseline)


def _stacked(what: str, ready: Setup, job: Job) -> Group:
    rng = np.random.default_rng(0)

    def masks(seed: int) -> Mask:
        scores = {name: rng.random(keep.shape, np.float32) for name, keep in job.mask.items()}
        return select(scores, job.mask, job.mask.total // 5)

    jobs = [replace(job, mask=masks(seed), seed=seed) for seed in range(JOBS)]

    def together() -> float:
        began = time.perf_counter()
        list(ready.trainer.train(jobs, frozenset()))
        return time.perf_counter() - began

    def in_turn() -> float:
        began = time.perf_counter()
        for each in jobs:
            list(ready.trainer.train([each], frozenset()))
        return time.perf_counter() - began

    baseline = f"{JOBS} controls of {what} one after the other"
    return Group({f"{JOBS} controls of {what} in one piece": together, baseline: in_turn}, baseline)
