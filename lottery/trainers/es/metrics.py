"""Metrics of networks that evolve: read on the host, by the same code that reads those of gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import torch

from es.translation.fixed import released
from es.translation.functions import to_torch
from lottery.networks.objectives.metric import BatchFunction, Metric, collects
from lottery.networks.objectives.tallies import reading, weighted


class HostReading:
    """A metric over one part of the data, of a network in JAX.

    A function that came with a JAX model sees JAX arrays; every other metric sees PyTorch tensors.
    """

    def __init__(
        self, metric: Metric, jax_pair: bool, restored: Callable[[Any], Any] = lambda outputs: outputs
    ) -> None:
        """Begin empty.

        Args:
            metric: as `objective_for` gives it.
            jax_pair: whether the caller works in JAX.
            restored: makes of outputs in plain containers those of the model's own classes.
        """
        self._in_jax = jax_pair and metric.sums is None and not collects(metric.function) and not _by_name(metric)
        function = _with_jax_arrays(metric.function) if self._in_jax else metric.function
        self._restored = restored
        self._reading = reading(replace(metric, function=function))

    def add(self, outputs: Any, targets: Any) -> None:
        """See one batch of JAX arrays."""
        pair = (outputs, targets)
        outputs, targets = jax.device_get(released(pair)) if self._in_jax else to_torch(pair)
        self._reading.add(self._restored(outputs), targets)

    def value(self) -> float:
        """Return the metric over all batches so far."""
        return self._reading.value()


def weigh_batch(loss: BatchFunction, value: float, outputs: Any, targets: Any) -> tuple[float, float]:
    """Return a batch's loss times its weight, and its weight (see `lottery.networks.objectives.tallies.weighted`).

    >>> weigh_batch(lambda outputs, targets: 0.0, 0.5, jnp.zeros(4), jnp.zeros(4))
    (2.0, 4.0)
    """
    host = to_torch((outputs, targets))
    share, weight = weighted(loss, torch.tensor(value, dtype=torch.float64), *host).tolist()
    return share, weight


def _by_name(metric: Metric) -> bool:
    from lottery.networks.objectives.scorers import Scorer

    return isinstance(metric.function, Scorer)


def _with_jax_arrays(function: BatchFunction) -> BatchFunction:
    def called(outputs: Any, targets: Any) -> Any:
        return function(*jax.tree.map(jnp.asarray, (outputs, targets)))

    return called
