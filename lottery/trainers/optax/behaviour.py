"""The behaviour of a network, its loss, its metric and its optimizer before any training."""

from __future__ import annotations

from collections.abc import Callable
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


def behaviour_of(frame: Frame) -> Callable[[Job], Behaviour]:
    """Return a function of a job: what its network, its loss and its optimizer do on the first batches.

    Those are losses, gradients, what the optimizer makes of them, and what is measured before any training.
    """
    problem, optimizer = frame.problem, frame.optimizer
    task = problem.task

    def look(arrays: Any, params: Any, state: Any, data: Any, places: Any, rate: Any, step: Any) -> Any:
        inputs, targets = jax.tree.map(lambda leaf: leaf[places], data)

        def loss(at: Any) -> jax.Array:
            outputs, _ = problem.forward({**arrays, **at}, inputs, jax.random.key(0))
            return jnp.asarray(task.loss(outputs, targets)).reshape(())

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.updates(state, gradients, params, rate, step, loss, value)
        return value, gradients, updates, state

    compiled, begin = jax.jit(look), jax.jit(optimizer.begin)

    def behave(job: Job) -> Behaviour:
        found = {}
        with computing_on(frame.device, "float32"):
            masked = job.mask.apply(job.params)
            arrays = {name: jnp.asarray(value) for name, value in masked.items()}
            params = {name: jnp.asarray(_halves(masked[name])) for name in task.space.names}
            rates = frame.rates.between(0, FIRST)
            state = begin(params, rates[0])
            batches = training_batches(problem.order, problem.batch_size, job.seed, 0, FIRST)
            for number, (places, _) in enumerate(batches):
                seen = (task.train, places.numpy(), rates[number], np.int32(number))
                value, gradients, updates, state = compiled(arrays, params, state, *seen)
                found[f"batch {number}"] = [float(value)]
                for what, tree in (("gradients", gradients), ("updates", updates)):
                    found[f"batch {number} {what}"] = described(np.asarray(leaf, np.float64) for leaf in tree.values())
            measured = task.measure(arrays)
        return {**found, **{name: [value] for name, value in vars(measured).items()}}

    return behave


def _halves(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack([array.real, array.imag], axis=-1) if np.iscomplexobj(array) else array
