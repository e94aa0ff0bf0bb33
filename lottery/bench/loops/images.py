"""A training step of convolutional networks: by this trainer, and by the best plain loop in PyTorch.

The plain loop has its data and weights channels last on the device, a fused optimizer, no mask and nothing to record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from lottery.data import Data
from lottery.data.parts import Tensors, prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent

BATCH, EXAMPLES, WARM, STEPS = 64, 512, 1, 2
SHAPE, CLASSES = (3, 32, 32), 10


@dataclass
class _Clock(Silent):
    """Notes when every step was done."""

    marks: list[float] = field(default_factory=list)

    def stepped(self, job: Job, step: int) -> None:
        """Note the time."""
        self.marks.append(time.perf_counter())

    def taken(self) -> float:
        """Return the seconds of a step, without those that warm up and the evaluation at the end, and begin anew."""
        marks = self.marks[WARM - 1 : WARM + STEPS]
        self.marks = []
        return (marks[-1] - marks[0]) / (len(marks) - 1)


def by_this_trainer(name: str, device: str) -> Callable[[float], Callable[[], float]]:
    """Return a function of a density that returns a run: the seconds of one step of this trainer."""
    data = _images()
    parts = prepare(Data(data.train, validation=data.test, name="images"), seed=0)
    source, clock = torch_source(name, parts, "model"), _Clock()
    steps = WARM + STEPS + 1
    config = GDConfig(
        optimizer="sgd", lr=0.01, momentum=0.9, batch_size=BATCH, steps=steps, eval_every=steps, device=device
    )
    trainer = setup(Ask(source, parts, config, None, None, clock, 0)).trainer
    shapes = prunable(source.build(0))

    def run(density: float) -> Callable[[], float]:
        rng = np.random.Generator(np.random.PCG64(1))
        mask = Mask({key: rng.random(shape) < density for key, shape in shapes.items()})
        job = Job(source.initial_state(0), mask, 0, Budget(0, steps))

        def seconds() -> float:
            list(trainer.train([job], frozenset()))
            return clock.taken()

        return seconds

    return run


def by_plain_loop(name: str, device: str) -> Callable[[], float]:
    """Return a run: the seconds of one step of the plain loop."""
    parts = prepare(_images(), seed=0)
    assert isinstance(parts.train, Tensors)
    place = torch.device("cuda" if device.startswith("cuda") else "cpu")
    model = torch_source(name, parts, "model").build(0).to(place)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    inputs = parts.train.inputs.to(place).to(memory_format=torch.channels_last)
    targets = parts.train.targets.to(place)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def seconds() -> float:
        clock = _Clock()
        model.train()
        order = torch.randperm(len(inputs)).to(place)
        for step in range(WARM + STEPS):
            rows = order[step * BATCH % len(order) :][:BATCH]
            optimizer.zero_grad()
            F.cross_entropy(model(inputs.index_select(0, rows)), targets.index_select(0, rows)).backward()
            optimizer.step()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            clock.marks.append(time.perf_counter())
        return clock.taken()

    return seconds


def _images() -> Data:
    rng = np.random.Generator(np.random.PCG64(0))
    x, y = rng.standard_normal((EXAMPLES + BATCH, *SHAPE), np.float32), rng.integers(0, CLASSES, EXAMPLES + BATCH)
    y[:CLASSES] = range(CLASSES)
    return Data(train=(x[:EXAMPLES], y[:EXAMPLES]), test=(x[EXAMPLES:], y[EXAMPLES:]), name="images")
