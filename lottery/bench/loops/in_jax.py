"""An epoch of LeNet-300-100 in JAX: by the trainers `optax` and `es`, and by a jitted loop written by hand.

Every function returns one that trains an epoch, evaluates the test images, and returns the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from es.config import ESConfig
from lottery.data.parts import Parts, Tensors
from lottery.networks.sources.source import ModelSource
from lottery.trainers import Ask, TrainerKind
from lottery.trainers.choosing import trainer_kind
from lottery.trainers.optax.config import OptaxConfig
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.watch import Silent

BATCH, POPULATION, LR = 128, 64, 0.1

Epoch = Callable[[], float]


def by_optax(source: ModelSource, parts: Parts, job: Job, mask: Mask, device: str) -> Epoch:
    """Return an epoch of the trainer `optax`: SGD, the mask held."""
    steps = job.budget.stop
    config = OptaxConfig(optimizer="sgd", lr=LR, batch_size=BATCH, steps=steps, eval_every=steps, device=device)
    return _trained(trainer_kind("optax"), Ask(source, parts, config, None, None, Silent(), 0), job, mask, steps)


def by_evolution(source: ModelSource, parts: Parts, job: Job, mask: Mask, device: str) -> Epoch:
    """Return as many generations of the trainer `es` as show one epoch's examples to members of its population."""
    generations = max(1, job.budget.stop // POPULATION)
    config = ESConfig(
        population=POPULATION, batch_size=BATCH, generations=generations, eval_every=generations, device=device
    )
    return _trained(trainer_kind("es"), Ask(source, parts, config, None, None, Silent(), 0), job, mask, generations)


def by_hand(parts: Parts, job: Job, mask: Mask) -> Epoch:
    """Return an epoch of a jitted loop as one writes it: gather a batch, gradients, SGD, weights times mask."""
    assert isinstance(parts.train, Tensors)
    assert isinstance(parts.test, Tensors)
    images, labels = (jnp.asarray(tensor.numpy()) for tensor in (parts.train.inputs, parts.train.targets))
    tests, answers = (jnp.asarray(tensor.numpy()) for tensor in (parts.test.inputs, parts.test.targets))
    keep = {name: jnp.asarray(mask[name], jnp.float32) if name in mask else 1.0 for name in job.params}
    start = {name: jnp.asarray(value) * keep[name] for name, value in job.params.items()}
    steps = job.budget.stop

    def outputs(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        hidden = x.reshape(x.shape[0], -1)
        for layer in ("fc1", "fc2"):
            hidden = jax.nn.relu(hidden @ params[f"{layer}.weight"].T + params[f"{layer}.bias"])
        return hidden @ params["fc3.weight"].T + params["fc3.bias"]

    def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        scores = jax.nn.log_softmax(outputs(params, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    @jax.jit
    def train(params: dict[str, jax.Array], order: jax.Array) -> dict[str, jax.Array]:
        def step(i: int, now: dict[str, jax.Array]) -> dict[str, jax.Array]:
            rows = jax.lax.dynamic_slice_in_dim(order, i * BATCH, BATCH)
            gradients = jax.grad(loss)(now, images[rows], labels[rows])
            return {name: (now[name] - LR * gradients[name]) * keep[name] for name in now}

        return jax.lax.fori_loop(0, steps, step, params)

    @jax.jit
    def correct(params: dict[str, jax.Array]) -> jax.Array:
        return (outputs(params, tests).argmax(1) == answers).mean()

    def epoch() -> float:
        order = np.random.default_rng(0).permutation(len(images))
        began = time.perf_counter()
        correct(train(start, jnp.asarray(order))).block_until_ready()
        return time.perf_counter() - began

    return epoch


def _trained(kind: TrainerKind, ask: Ask, job: Job, mask: Mask, steps: int) -> Epoch:
    trainer = kind.setup(ask).trainer
    masked = Job(job.params, mask, 0, Budget(0, steps))

    def epoch() -> float:
        began = time.perf_counter()
        list(trainer.train([masked], frozenset()))
        return time.perf_counter() - began

    return epoch
