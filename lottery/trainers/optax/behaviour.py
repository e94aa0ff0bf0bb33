"""The behaviour of a network, its loss, its metric and its optimizer before any training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.device import computing_on
from lottery.data.batches import training_batches
from lottery.state.behaviour import Behaviour, described
from lottery.trainers.optax.frame import Frame
from pruning.jobs import Job

# How many of the first batches are looked at.
FIRST = 2


def behaviour(frame: Frame, job: Job) -> Behaviour:
    """Return losses, gradients and what the optimizer makes of them on the first batches, and what is measured.

    Args:
        frame: how it would be trained.
        job: where a training would begin; nothing is trained.
    """
    problem, optimizer = frame.problem, frame.optimizer
    task, space = problem.task, problem.task.space
    with computing_on(frame.device, "float32"):
        arrays = {name: jnp.asarray(value) for name, value in job.mask.apply(job.params).items()}
        params = {name: arrays[name] for name in space.names}
        for name in space.halved:
            params[name] = jnp.stack([params[name].real, params[name].imag], -1)

        def look(params: Any, state: Any, places: Any, rate: Any, step: Any) -> Any:
            inputs, targets = jax.tree.map(lambda leaf: leaf[places], task.train)

            def loss(at: Any) -> jax.Array:
                return jnp.asarray(task.loss(task.network.apply({**arrays, **at}, inputs), targets)).reshape(())

            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = optimizer.updates(state, gradients, params, rate, step, loss, value)
            return value, gradients, updates, state

        compiled = jax.jit(look)
        rates = [jnp.asarray(rate) for rate in frame.rates.between(0, FIRST)]
        state = optimizer.begin(params, rates[0])
        found = {}
        batches = training_batches(problem.order, problem.batch_size, job.seed, 0, FIRST)
        for number, (places, _) in enumerate(batches):
            value, gradients, updates, state = compiled(params, state, places.numpy(), rates[number], number)
            found[f"batch {number}"] = [float(value)]
            for what, tree in (("gradients", gradients), ("updates", updates)):
                found[f"batch {number} {what}"] = described(np.asarray(leaf, np.float64) for leaf in tree.values())
        measured = task.measure(arrays)
    return {**found, **{name: [value] for name, value in vars(measured).items()}}
