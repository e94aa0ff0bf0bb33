"""Losses of a batch, in JAX: the same definitions as in the gradient-descent trainer."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pruning.errors import DataError

IGNORED = -100
"""The label of examples that `torch.nn.functional.cross_entropy` leaves out by default."""


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of logits with classes along axis 1 and integer labels.

    As in PyTorch, the label −100 does not count.

    >>> round(float(cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 3, -100]))), 4)
    1.3863
    """
    counts = targets != IGNORED
    log_probabilities = jax.nn.log_softmax(outputs, axis=1)
    own = jnp.take_along_axis(log_probabilities, jnp.where(counts, targets, 0)[:, None], axis=1)[:, 0]
    return -jnp.where(counts, own, 0.0).sum() / counts.sum()


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean squared error; [N, 1] outputs fit [N] targets.

    Raises:
        DataError: outputs and targets of different sizes.
    """
    return jnp.mean((_like(outputs, targets) - targets) ** 2)


def binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of logits with boolean labels."""
    logits = _like(outputs, targets)
    return jnp.mean(jax.nn.softplus(logits) - logits * targets.astype(logits.dtype))


def _like(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    if outputs.size != targets.size:
        raise DataError(f"the model returns shape {outputs.shape} for labels of shape {targets.shape}")
    return outputs.reshape(targets.shape)
