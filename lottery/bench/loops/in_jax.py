"""An epoch of LeNet-300-100 in JAX: by the trainer `optax`, and by two jitted loops written by hand.

Every function returns one that trains an epoch, evaluates the test images, and returns the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from lottery.data.parts import Parts, Tensors
from lottery.networks.sources.source import ModelSource
from lottery.trainers import Ask, TrainerKind
from lottery.trainers.choosing import trainer_kind
from lottery.trainers.optax.config import OptaxConfig
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.watch import Silent

BATCH, LR = 128, 0.1

Epoch = Callable[[], float]
Params = dict[str, jax.Array]


def by_optax(source: ModelSource, parts: Parts, job: Job, mask: Mask, device: str) -> Epoch:
    """Return an epoch of the trainer `optax`: SGD, the mask held."""
    steps = job.budget.stop
    config = OptaxConfig(optimizer="sgd", lr=LR, batch_size=BATCH, steps=steps, eval_every=steps, device=device)
    return _trained(trainer_kind("optax"), Ask(source, parts, config, None, None, Silent(), 0), job, mask, steps)


def in_one_program(parts: Parts, job: Job, mask: Mask) -> Epoch:
    """Return an epoch by hand, one compiled program: gather a batch, gradients, SGD, weights times mask."""
    hand = _by_hand(parts, job, mask)
    steps = job.budget.stop

    @jax.jit
    def train(params: Params, order: jax.Array) -> Params:
        def step(i: int, now: Params) -> Params:
            return hand.step(now, jax.lax.dynamic_slice_in_dim(order, i * BATCH, BATCH))

        return jax.lax.fori_loop(0, steps, step, params)

    return _timed(hand, train)


def step_by_step(parts: Parts, job: Job, mask: Mask) -> Epoch:
    """Return an epoch by hand as most people write it: a compiled step, called from Python for each batch."""
    hand = _by_hand(parts, job, mask)
    step = jax.jit(hand.step)
    steps = job.budget.stop

    def train(params: Params, order: jax.Array) -> Params:
        rows = np.asarray(order)
        for i in range(steps):
            params = step(params, rows[i * BATCH : (i + 1) * BATCH])
        return params

    return _timed(hand, train)


@dataclass(frozen=True)
class _Hand:
    """What both loops by hand are made of."""

    start: Params
    examples: int
    step: Callable[[Params, jax.Array], Params]
    correct: Callable[[Params], jax.Array]


def _by_hand(parts: Parts, job: Job, mask: Mask) -> _Hand:
    assert isinstance(parts.train, Tensors)
    assert isinstance(parts.test, Tensors)
    images, labels = (jnp.asarray(tensor.numpy()) for tensor in (parts.train.inputs, parts.train.targets))
    tests, answers = (jnp.asarray(tensor.numpy()) for tensor in (parts.test.inputs, parts.test.targets))
    keep = {name: jnp.asarray(mask[name], jnp.float32) if name in mask else 1.0 for name in job.params}
    start = {name: jnp.asarray(value) * keep[name] for name, value in job.params.items()}

    def outputs(params: Params, x: jax.Array) -> jax.Array:
        hidden = x.reshape(x.shape[0], -1)
        for layer in ("fc1", "fc2"):
            hidden = jax.nn.relu(hidden @ params[f"{layer}.weight"].T + params[f"{layer}.bias"])
        return hidden @ params["fc3.weight"].T + params["fc3.bias"]

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        scores = jax.nn.log_softmax(outputs(params, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def step(now: Params, rows: jax.Array) -> Params:
        gradients = jax.grad(loss)(now, images[rows], labels[rows])
        return {name: (now[name] - LR * gradients[name]) * keep[name] for name in now}

    @jax.jit
    def correct(params: Params) -> jax.Array:
        return (outputs(params, tests).argmax(1) == answers).mean()

    return _Hand(start, len(images), step, correct)


def _timed(hand: _Hand, train: Callable[[Params, jax.Array], Params]) -> Epoch:
    def epoch() -> float:
        order = np.random.default_rng(0).permutation(hand.examples)
        began = time.perf_counter()
        hand.correct(train(hand.start, jnp.asarray(order))).block_until_ready()
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
