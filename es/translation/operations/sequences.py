"""Losses of sequences whose alignment is unknown."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from es.translation.operations.registry import operation


@operation("_ctc_loss")
def _ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, zero_infinity: bool = False
) -> jax.Array:
    """Negative log-likelihood of each target sequence over all its alignments (Graves et al. 2006, equations 6 to 8).

    Args:
        log_probs: [time, batch, classes].
        targets: [batch, length], or all sequences one after the other.
        input_lengths: [batch], how many steps of time count.
        target_lengths: [batch], how many labels count.
        blank: the class between labels.
        zero_infinity: torch puts the zeros in afterwards.
    """
    del zero_infinity
    lengths, steps = (jnp.asarray(each).reshape(-1) for each in (target_lengths, input_lengths))
    longest = max(1, targets.shape[-1])
    if targets.ndim == 1:
        starts = jnp.cumsum(lengths) - lengths
        places = starts[:, None] + jnp.arange(longest)
        targets = jnp.resize(targets, (longest,))[jnp.clip(places, 0, longest - 1)]
    # A blank before, between and after the labels.
    labels = jnp.full((len(lengths), 2 * longest + 1), blank).at[:, 1::2].set(targets)
    may_skip = (labels != blank) & (labels != jnp.roll(labels, 2, axis=1)) & (jnp.arange(labels.shape[1]) > 1)
    emitted = jnp.take_along_axis(log_probs, labels[None], axis=2)
    start = jnp.where(jnp.arange(labels.shape[1]) < jnp.minimum(2 * lengths, 1)[:, None] + 1, emitted[0], -jnp.inf)

    def step(paths: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        time, emits = now
        further = [_later(paths, 1), jnp.where(may_skip, _later(paths, 2), -jnp.inf)]
        arrived = jax.nn.logsumexp(jnp.stack([paths, *further]), axis=0) + emits
        return jnp.where(time < steps[:, None], arrived, paths), None

    paths, _ = jax.lax.scan(step, start, (jnp.arange(1, len(emitted)), emitted[1:]))
    ends = jnp.stack([2 * lengths, jnp.maximum(2 * lengths - 1, 0)], axis=1)
    last = jnp.take_along_axis(paths, ends, axis=1)
    last = last.at[:, 1].set(jnp.where(lengths > 0, last[:, 1], -jnp.inf))
    nothing = jnp.where(lengths > 0, jnp.inf, 0.0)
    return jnp.where(steps > 0, -jax.nn.logsumexp(last, axis=1), nothing)


def _later(paths: jax.Array, places: int) -> jax.Array:
    return jnp.pad(paths[:, :-places], ((0, 0), (places, 0)), constant_values=-jnp.inf)
