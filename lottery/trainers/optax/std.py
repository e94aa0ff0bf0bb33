"""How sure gradient descent is of each weight: the empirical Fisher diagonal at the trained weights, in JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from es.tasks.supervised import Supervised
from lottery.data.batches import sample
from lottery.data.part import Tensors
from lottery.trainers.gd.std import PRIOR_PRECISION
from pruning.jobs import Job

# Examples whose gradients are held at once.
_CHUNK = 64


Squares = Callable[[Mapping[str, Any], Mapping[str, Any], Any, NDArray[Any], NDArray[Any]], Mapping[str, jax.Array]]


def squares_of(task: Supervised) -> Squares:
    """Return the compiled sum of squared gradients of single examples' losses.

    It takes the weights to look at, all other parameters and buffers, the training part, the places of the examples,
    and how often each counts.
    """

    def run(
        weights: Mapping[str, Any], fixed: Mapping[str, Any], data: Any, places: jax.Array, counts: jax.Array
    ) -> Mapping[str, jax.Array]:
        def loss(weights: Mapping[str, Any], example: Any) -> jax.Array:
            inputs, targets = jax.tree.map(lambda leaf: leaf[None], example)
            return jnp.asarray(task.loss(task.network.apply({**fixed, **weights}, inputs), targets)).reshape(())

        examples = jax.tree.map(lambda leaf: leaf[places], data)
        gradients = jax.vmap(jax.grad(loss), (None, 0))(dict(weights), examples)
        # what does not count may be no number
        return {
            name: jnp.where(counts.reshape(-1, *[1] * (g.ndim - 1)), g * g, 0).sum(0)
            for name, g in map(_halved, gradients.items())
        }

    return jax.jit(run)


def fisher_std(
    squares: Squares, data: Any, order: Tensors, arrays: Mapping[str, Any], job: Job, most: int
) -> dict[str, NDArray[np.float32]]:
    """Return 1 / √(N F + λ) for every weight of a job's mask, float32, 0 for removed ones.

    F is the mean of squared gradients of single examples' losses, N the number of training examples, λ the precision
    of a wide prior: the estimator `fisher` of trainer `gd`, on the same examples.

    Args:
        squares: as `squares_of` gives it.
        data: the training part, on the device.
        order: the places of its examples.
        arrays: all parameters and buffers at the trained weights; complex ones that are trained as their halves.
        job: whose mask says which tensors are looked at, and whose seed in which order examples are.
        most: how many of them, at most.
    """
    places, mask = sample(order, most, job.seed)[0].numpy(), job.mask
    fixed = {name: value for name, value in arrays.items() if name not in mask}
    weights = {name: arrays[name] for name in mask}
    total: dict[str, Any] = dict.fromkeys(mask, 0.0)
    for start in range(0, len(places), _CHUNK):
        own = places[start : start + _CHUNK]
        counts = np.arange(_CHUNK) < len(own)
        found = squares(weights, fixed, data, np.pad(own, (0, _CHUNK - len(own))), counts)
        total = {name: total[name] + np.asarray(found[name], np.float64) for name in mask}
    count = len(order)
    std = {name: (count * value / len(places) + PRIOR_PRECISION) ** -0.5 for name, value in total.items()}
    whole = {name: np.linalg.norm(v, axis=-1) if v.ndim > mask[name].ndim else v for name, v in std.items()}
    return {name: np.where(keep, whole[name], 0).astype(np.float32) for name, keep in mask.items()}


def _halved(item: tuple[str, jax.Array]) -> tuple[str, jax.Array]:
    """Return a gradient with the halves of a complex one along a last axis."""
    name, gradient = item
    return name, jnp.stack([gradient.real, gradient.imag], -1) if jnp.iscomplexobj(gradient) else gradient
