"""LeNet-300-100 on 28×28 images, ready to train an epoch: by this trainer, and what others are compared on."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from lottery.data import Data
from lottery.data.datasets import load_data
from lottery.data.parts import Parts, Tensors, prepare
from lottery.networks.sources.choosing import torch_source
from lottery.networks.sources.source import ModelSource
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent

BATCH, LR = 128, 0.1
EXAMPLES = (60_000, 10_000)
"""Images for training and for the test, where they are made up."""


@dataclass(frozen=True)
class Case:
    """What is timed: a network of one density on one data set.

    Attributes:
        source: where the network comes from.
        parts: all images for training, one batch for validation, the test images.
        setup: the trainer.
        job: one epoch of the dense network.
    """

    source: ModelSource
    parts: Parts
    setup: Setup
    job: Job

    def thinned(self, density: float) -> Job:
        """Return the epoch under a random mask of this density; the dense one for 1."""
        if density == 1:
            return self.job
        rng = np.random.Generator(np.random.PCG64(1))
        mask = Mask({name: rng.random(shape) < density for name, shape in self.job.mask.shapes().items()})
        return Job(self.job.params, mask, 0, self.job.budget)

    def seconds(self, density: float) -> float:
        """Return the seconds of an epoch by this trainer, evaluation of the test images included."""
        job = self.thinned(density)
        began = time.perf_counter()
        list(self.setup.trainer.train([job], frozenset()))
        return time.perf_counter() - began


def lenet(data: str, device: str) -> Case:
    """Return the case for a data set; `synthetic` makes random images.

    All training images train, as in published timings; one batch of test images stands in for validation.
    """
    given = synthetic() if data == "synthetic" else load_data(data)
    raw = prepare(Data(given.train, validation=given.test, test=given.test, name=given.name), seed=0)
    assert isinstance(raw.train, Tensors)
    assert isinstance(raw.test, Tensors)
    sliver = Tensors(raw.test.inputs[:BATCH], raw.test.targets[:BATCH])
    parts = Parts(raw.train, sliver, raw.test, raw.name)
    source = torch_source("lenet-300-100", parts, "model")
    steps = len(raw.train) // BATCH
    config = GDConfig(optimizer="sgd", lr=LR, batch_size=BATCH, steps=steps, eval_every=steps, device=device)
    ready = setup(Ask(source, parts, config, None, None, Silent(), 0))
    mask = Mask.dense(prunable(source.build(0)))
    return Case(source, parts, ready, Job(source.initial_state(0), mask, 0, Budget(0, steps)))


@functools.cache
def synthetic() -> Data:
    """Return random images as bytes, and random labels of ten classes."""
    train, test = EXAMPLES
    rng = np.random.Generator(np.random.PCG64(0))
    x = rng.integers(0, 256, (train + test, 28, 28), np.uint8)
    y = rng.integers(0, 10, train + test)
    return Data(train=(x[:train], y[:train]), test=(x[train:], y[train:]), name="synthetic")
