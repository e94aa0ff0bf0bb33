"""Replicates of the digits MLP: several in one call, against one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lottery.data.datasets import load_data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent

STEPS = 1_000


def replicates(device: str, steps_by: str = "auto") -> Callable[[int, bool], Callable[[], float]]:
    """Return a function of a count that returns a run: seconds of that many trainings, together or in turn.

    Args:
        device: where to train.
        steps_by: what takes the steps.
    """
    parts = prepare(load_data("digits"), seed=0)
    source = torch_source("mlp", parts, "model")
    config = GDConfig(steps=STEPS, eval_every=STEPS, device=device, steps_by=steps_by)
    trainer = setup(Ask(source, parts, config, None, None, Silent(), 0)).trainer
    mask = Mask.dense(prunable(source.build(0)))
    first = Job(source.initial_state(0), mask, 0, Budget(0, STEPS))

    def run(count: int, together: bool) -> Callable[[], float]:
        jobs = [replace(first, params=source.initial_state(seed), seed=seed) for seed in range(count)]

        def seconds() -> float:
            began = time.perf_counter()
            for group in [jobs] if together else [[job] for job in jobs]:
                list(trainer.train(group, frozenset()))
            return time.perf_counter() - began

        return seconds

    return run
