"""Trainings by hand that the tests of trainer `optax` share: no search, no disk."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lottery import Data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import model_source
from lottery.trainers import TRAINERS, Ask, Setup
from lottery.trainers.optax.networks.problem import Problem
from lottery.trainers.optax.trainer import OptaxTrainer
from pruning.jobs import Budget, Job, Params, Trained
from pruning.mask import Mask
from pruning.watch import Silent, Watch
from tests.lottery.helpers import blobs

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def perceptron(seed: int) -> Any:
    """6-8-3 in plain JAX."""
    first, second = jax.random.split(jax.random.key(seed))
    params = {
        "first": {"kernel": 0.4 * jax.random.normal(first, (6, 8)), "bias": jax.numpy.zeros(8)},
        "second": {"kernel": 0.4 * jax.random.normal(second, (8, 3)), "bias": jax.numpy.zeros(3)},
    }
    return params, forward


def forward(params: Any, x: Any) -> Any:
    """Return the outputs of the perceptron."""
    hidden = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"])
    return hidden @ params["second"]["kernel"] + params["second"]["bias"]


def line(params: Any, x: Any) -> Any:
    """Return a line through the origin: outputs of one weight for each input."""
    return x @ params["w"]


def ready(model: Any, data: Any = DATA, trainer: str = "optax", watch: Watch | None = None, **settings: Any) -> Setup:
    """Return a trainer for a model and data; 12 steps of 16 examples unless the settings say otherwise."""
    kind, parts = TRAINERS[trainer].value, prepare(data, 0)
    loss = settings.pop("loss", None)
    config = kind.config(**{"steps": 12, "batch_size": 16, **settings})
    return kind.setup(Ask(model_source(model, parts, "model"), parts, config, loss, None, watch or Silent(), 0))


def job_of(
    model: Any, seed: int = 0, density: float = 1.0, budget: Budget | None = None, changed: Params | None = None
) -> Job:
    """Return a job of one seed's network, with a random mask of about this density, and other weights where given."""
    source = model_source(model, prepare(DATA, 0), "model")
    rng = np.random.Generator(np.random.PCG64(seed))
    mask = Mask({name: rng.random(shape) < density for name, shape in source.prunable(seed, (), ()).items()})
    return Job({**source.initial_state(seed), **(changed or {})}, mask, seed, budget or Budget(0, 12))


def problem_in(setup: Setup) -> Problem:
    """Return what a trainer trains."""
    assert isinstance(setup.trainer, OptaxTrainer)
    return setup.trainer.frame.problem


def trained(setup: Setup, *jobs: Job, needs: frozenset[str] = frozenset()) -> list[Trained]:
    """Return what a trainer makes of these jobs."""
    return list(setup.trainer.train(jobs, needs))
