"""A small network and task that several tests share, made by hand in JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.config import ESConfig
from es.coordinates import Space
from es.network import Network
from es.objectives import cross_entropy
from es.tasks.supervised import Supervised, size
from es.trainer import ESTrainer
from pruning.jobs import Budget, Evaluation, Job
from pruning.mask import Mask
from pruning.watch import Silent
from tests.lottery.helpers import blobs

EVOLVED = ("in.weight", "in.bias", "out.weight", "out.bias")
STEPS = 12


def apply(params: Any, inputs: Any) -> Any:
    """6-5-3, and a buffer that scales the inputs."""
    hidden = jnp.tanh(params["scale"] * inputs @ params["in.weight"].T + params["in.bias"])
    return hidden @ params["out.weight"].T + params["out.bias"]


def network() -> Network:
    return Network(apply, EVOLVED)


def initial(seed: int = 0) -> dict[str, Any]:
    rng = np.random.Generator(np.random.PCG64(seed))
    shapes = {"in.weight": (5, 6), "in.bias": (5,), "out.weight": (3, 5), "out.bias": (3,)}
    params: dict[str, Any] = {n: rng.standard_normal(s).astype(np.float32) / 2 for n, s in shapes.items()}
    return params | {"scale": np.asarray(1.0, np.float64), "seen": np.asarray(2**40 + 1, np.int64)}


def mask(kept: int | None = None) -> Mask:
    """All 45 weights, or the first so many of each tensor's rows in turn."""
    dense = {"in.weight": np.ones((5, 6), bool), "out.weight": np.ones((3, 5), bool)}
    if kept is not None:
        flat = np.zeros(45, bool)
        flat[np.random.Generator(np.random.PCG64(kept)).permutation(45)[:kept]] = True
        dense = {"in.weight": flat[:30].reshape(5, 6), "out.weight": flat[30:].reshape(3, 5)}
    return Mask(dense)


def by_examples(loss: float, outputs: Any, targets: Any) -> tuple[float, float]:
    """Weigh a batch's loss by its number of examples."""
    del outputs
    return loss * size(targets), float(size(targets))


@dataclass
class MeanOver:
    """A metric that is a mean over examples: `function(outputs, targets)` returns that of a batch."""

    function: Callable[[Any, Any], Any]
    _total: float = 0.0
    _examples: int = 0

    def add(self, outputs: Any, targets: Any) -> None:
        self._total += float(self.function(outputs, targets)) * size(targets)
        self._examples += size(targets)

    def value(self) -> float:
        return self._total / self._examples


def accuracy(outputs: Any, targets: Any) -> Any:
    return (outputs.argmax(1) == targets).mean(dtype=jnp.float32)


@cache
def task(loss: Any = cross_entropy, batch_size: int = 32) -> Supervised:
    train, validation, test = (jax.tree.map(jnp.asarray, blobs(n, seed=s)) for n, s in ((96, 0), (30, 1), (30, 2)))
    space = Space.of(initial(), EVOLVED)
    metric = partial(MeanOver, accuracy)
    return Supervised(network(), space, train, validation, test, loss, metric, by_examples, batch_size, initial())


def job(seed: int = 0, kept: int | None = None, budget: Budget | None = None) -> Job:
    return Job(initial(seed), mask(kept), seed, budget or Budget(0, STEPS))


@dataclass
class Keeper(Silent):
    """A watch that writes down what it is told, and keeps checkpoints in memory."""

    steps: list[tuple[int, int]] = field(default_factory=list)
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)
    kept: list[tuple[Sequence[Job], Any, Any]] = field(default_factory=list)
    stop_at: int | None = None

    def stepped(self, job: Job, step: int) -> None:
        self.steps.append((job.seed, step))

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        self.evaluations.append((job.seed, evaluation))

    def checkpoint(self, jobs: Sequence[Job], arrays: Any, facts: Any) -> None:
        self.kept.append((jobs, arrays, facts))
        if self.stop_at is not None and len(self.kept) >= self.stop_at:
            raise KeyboardInterrupt

    def restore(self, jobs: Sequence[Job]) -> Any:
        return self.kept[-1][1:] if self.kept else None


def trainer(watch: Any = None, given: Supervised | None = None, devices: Any = None, **settings: Any) -> ESTrainer:
    judged = given or task()
    total = settings.pop("generations", STEPS)
    config = ESConfig(**({"population": 16, "eval_every": 4, "sigma": 0.1} | settings))
    return ESTrainer(judged, judged.space, config, total, devices or (jax.devices("cpu")[0],), watch or Silent())
