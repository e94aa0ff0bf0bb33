"""Gradient descent in JAX, ready for a search."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.device import choose_devices, computing_on
from lottery.data.batches import steps_per_epoch
from lottery.state.machine.telling import say
from lottery.trainers import Ask, Setup
from lottery.trainers.descent import unread
from lottery.trainers.factors import factors_for
from lottery.trainers.optax.behaviour import behaviour_of
from lottery.trainers.optax.config import OptaxConfig
from lottery.trainers.optax.frame import Frame
from lottery.trainers.optax.networks.confirming import confirming
from lottery.trainers.optax.networks.problem import Problem, problem_of
from lottery.trainers.optax.optimizers.optimizer import optimizer_for
from lottery.trainers.optax.optimizers.rates import rates_for
from lottery.trainers.optax.trainer import OptaxTrainer
from pruning.calls.users_code import one_line, users_code
from pruning.errors import BadValue


def setup(ask: Ask) -> Setup:
    """Translate the model, put the data on the device, check that all fits, and return the trainer.

    Raises:
        DeviceError: a device that JAX does not have here.
        DataError: a model that cannot take these inputs, or labels that its outputs cannot give.
        UsageError: an optimizer, a schedule or a model that cannot be trained so.
    """
    config: OptaxConfig = ask.config
    for line in unread(config):
        say(line)
    device = choose_devices(config.device)[0]
    with computing_on(device, "float32"):
        problem = problem_of(ask)
        per_epoch = steps_per_epoch(problem.order, problem.batch_size)
        total = config.total_steps(per_epoch)
        rates, optimizer = rates_for(config, total), optimizer_for(config, total)
        factors = factors_for(ask, problem.task.space.names)
        frame = Frame(problem, config, optimizer, rates, total, device, ask.watch, factors)
        _try_step(frame)
        trainer = OptaxTrainer(frame, _refusals(problem, config), confirming(ask, problem))
    words = "cpu" if device.platform == "cpu" else device.device_kind
    return Setup(
        trainer,
        total,
        per_epoch,
        problem.measure,
        problem.objective,
        words,
        trainer.refusals,
        behaviour_of(frame),
    )


def _try_step(frame: Frame) -> None:
    """Raise `BadValue` where the optimizer cannot work on these weights; nothing is computed."""
    task, optimizer = frame.problem.task, frame.optimizer
    params = {name: task.params[name] for name in task.space.names}

    def step(params: Any, rate: jax.Array) -> Any:
        state = optimizer.begin(params, rate)
        updates, after = optimizer.updates(
            state, params, params, rate, jnp.zeros((), jnp.int32), lambda at: jnp.zeros(()), jnp.zeros(())
        )
        return updates, state, after

    with users_code("the optimizer on these weights", BadValue):
        updates, before, after = jax.eval_shape(step, params, jnp.zeros(()))
    if jax.tree.structure(updates) != jax.tree.structure(params):
        raise BadValue("the optimizer does not return an update for every weight, and for nothing else")
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise BadValue("the optimizer's state changes its form from step to step, which one compiled loop cannot hold")


def _refusals(problem: Problem, config: OptaxConfig) -> dict[str, str]:
    """Return why no standard deviation can be had; nothing where it can."""
    task = problem.task
    if config.train_only and task.space.halved:
        return {"std": "train_only leaves complex weights alone that then have no standard deviation; use magnitude"}

    def loss(inputs: Any, targets: Any) -> Any:
        return task.loss(task.network.apply(task.params, inputs), targets)

    try:
        one = jax.tree.map(lambda leaf: leaf[:1], task.train)
        jax.eval_shape(jax.grad(lambda scale: jnp.asarray(loss(*one)).reshape(()) * scale), jnp.ones(()))
    except Exception as error:  # the caller's loss may do anything
        return {"std": f"the loss of single examples cannot be had ({one_line(error)}); use magnitude"}
    return {}
