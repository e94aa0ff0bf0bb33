"""What a step of stacked networks takes, for each kind of layer: from here come the rules that say what is stacked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from lottery.bench import Report, benchmark, row, timed_rounds
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.state.machine.device import choose_device
from lottery.trainers import Ask
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.selection import select
from pruning.torch_modules import prunable
from pruning.watch import Silent

# Shapes of an example, by model: fully connected, convolutions, batch norm, attention.
MODELS = {
    "lenet-300-100": (1, 28, 28),
    "cnn-8-16": (1, 28, 28),
    "resnet-20": (3, 32, 32),
    "small-transformer": (1, 28, 28),
}
EXAMPLES, CLASSES, BATCH = 600, 10, 60

# Networks in a stack, and steps that are timed. Those before are training, too: a device records them.
STACKED = {"cpu": 5, "cuda": 20}
STEPS = {"cpu": 4, "cuda": 500}
BEFORE = 6


@dataclass(frozen=True)
class _Case:
    """A model and the jobs of its stack.

    Attributes:
        trainer: trains them.
        jobs: with masks of their own.
        steps: that are timed.
    """

    trainer: GDTrainer
    jobs: list[Job]
    steps: int

    def seconds(self, count: int) -> float:
        """Return the seconds that a step of `count` networks takes, once everything is made."""
        return max(1e-9, self._taken(count, BEFORE + self.steps) - self._taken(count, BEFORE)) / self.steps

    def _taken(self, count: int, steps: int) -> float:
        jobs = [replace(job, budget=Budget(0, steps)) for job in self.jobs[:count]]
        began = time.perf_counter()
        self.trainer.train_group(jobs, frozenset())
        return time.perf_counter() - began


@benchmark("stacks", source="against one network's steps, as often as there are networks")
def bench_stacks(data: str, repeats: int, device: str) -> Report:
    """Seconds for one step of stacked networks, by kind of layer: fully connected, convolutions, batch norm, attention.

    Adam, batches of 60 random examples, half of the weights removed. The baseline of each is the step of one network
    that trains alone, times the networks in the stack. What setting up, recording and the one evaluation take is
    subtracted: a training of few steps from one of many.

    Args:
        data: unused: examples are random, in the shapes that the networks are known for.
        repeats: timed runs of each.
        device: as for `lottery prune`.
    """
    del data
    where = choose_device(device)
    count = STACKED[where.type]
    cases = {name: _case(name, shape, device, count, STEPS[where.type]) for name, shape in MODELS.items()}
    runs: dict[str, Callable[[], float]] = {}
    for name, case in cases.items():
        runs[f"{count} x {name}, one after the other"] = lambda case=case: count * case.seconds(1)
        runs[f"{count} x {name}, stacked"] = lambda case=case: case.seconds(count)
    seconds = timed_rounds(runs, repeats)
    words = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    facts = {"precision": "float32", "device": words, "threads": torch.get_num_threads(), "batch": BATCH}
    rows = [
        row(what, "step", seconds[what], seconds[what.rpartition(", ")[0] + ", one after the other"], **facts)
        for what in runs
    ]
    note = (
        f"{words}, float32, Adam, batch {BATCH}, median of {repeats}; a step of all {count} networks, against that of "
        f"one that trains alone times {count}"
    )
    return Report(rows, "step", note)


def _case(name: str, shape: tuple[int, ...], device: str, count: int, steps: int) -> _Case:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((EXAMPLES, *shape), np.float32)
    labels = np.arange(EXAMPLES) % CLASSES
    few = inputs[:BATCH], labels[:BATCH]
    parts = prepare(Data((inputs, labels), validation=few, name="random"), seed=0)
    source = torch_source(name, parts, "model")
    config = GDConfig(batch_size=BATCH, steps=BEFORE + steps, eval_every=10**6, device=device, steps_by="pytorch")
    trainer = setup(Ask(source, parts, config, None, None, Silent(), 0)).trainer
    assert isinstance(trainer, GDTrainer)
    dense = Mask.dense(prunable(source.build(0)))
    jobs: list[Job] = []
    for seed in range(count):
        scores = {name: rng.random(keep.shape, np.float32) for name, keep in dense.items()}
        mask = select(scores, dense, dense.total // 2)
        jobs.append(Job(source.initial_state(seed), mask, seed, Budget(0, BEFORE)))
    return _Case(trainer, jobs, steps)
