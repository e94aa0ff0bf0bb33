"""Learning from examples: classification and regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from es.coordinates import Space
from es.network import Arrays, Network
from es.population import population_outputs
from es.tasks import Measured

BatchFunction = Callable[[Any, Any], jax.Array]
Examples = tuple[Any, Any]


class Reading(Protocol):
    """A metric over one part of the data, batch by batch, on the host."""

    def add(self, outputs: Any, targets: Any) -> None:
        """See one batch: what the network gives, and its targets."""
        ...

    def value(self) -> float:
        """Return the metric over all batches."""
        ...


# Without a population eight times as many examples fit.
MEASURED_AT_ONCE = 8


@dataclass(frozen=True)
class KeptBatches:
    """How many examples lie in each batch of a part, where the batches must stay as they are.

    The last batch of a part may have fewer; no generation sees that of the training part.

    Attributes:
        train: of the training part.
        validation: of the validation part.
        test: of the test part.
    """

    train: int
    validation: int
    test: int


@dataclass(frozen=True, eq=False)
class Supervised:
    """Fitness on minibatches; all members of a generation see the same examples.

    Attributes:
        network: the network to train.
        space: its evolved parameters.
        train: inputs and targets, pytrees of arrays with the examples along the first axis.
        validation: inputs and targets, in the same form.
        test: inputs and targets, in the same form, or None.
        loss: `loss(outputs, targets)` returns a scalar.
        metric: returns a fresh reading of the metric.
        weigh: `weigh(loss, outputs, targets)` returns a batch's loss times its weight in the mean over a part, and that
            weight.
        batch_size: examples a generation, drawn with replacement; the whole part where it has no more.
        params: all parameters and buffers of such a network, for `flops` alone.
        kept: the batches that the examples lie in, one after the other, where it matters which ones share a batch: a
            generation sees as many of them as hold `batch_size` examples, at least one. None where it does not matter.
    """

    network: Network
    space: Space
    train: Examples
    validation: Examples
    test: Examples | None
    loss: BatchFunction
    metric: Callable[[], Reading]
    weigh: Callable[[float, Any, Any], tuple[float, float]]
    batch_size: int
    params: Arrays = field(repr=False)
    kept: KeptBatches | None = None
    _measure: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_measure", jax.jit(self._measure_batch))

    @property
    def flops(self) -> float:
        """Operations of one forward pass over a minibatch, counted by the compiler."""
        return self._flops

    @cached_property
    def _flops(self) -> float:
        count = self.batch_size if self.kept is None else self.kept.train
        batch = jax.tree.map(lambda leaf: leaf[:count], self.train[0])
        costs: Any = jax.jit(self.network.apply).lower(dict(self.params), batch).cost_analysis()
        return float(costs["flops"]) * (1 if self.kept is None else self._batches(self.kept)[1])

    @property
    def data(self) -> Examples:
        """The training part."""
        return self.train

    def losses(
        self, data: Examples, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
    ) -> tuple[jax.Array, tuple[()]]:
        """Return every member's loss on one minibatch; examples leave nothing behind."""

        def of_batch(batch: Examples) -> jax.Array:
            inputs, targets = batch
            outputs = population_outputs(self.network.apply, self.space, where, population, fixed, inputs)
            return jax.vmap(lambda own: self.loss(own, targets))(outputs).astype(jnp.float32)

        if self.kept is None:
            return of_batch(self._minibatch(data, key)), ()
        return jax.lax.map(of_batch, self._whole_batches(self.kept, data, key)).mean(axis=0), ()

    def seen(self, key: jax.Array) -> list[Examples]:
        """Return the batches that a generation with this key sees; its losses are means over them."""
        if self.kept is None:
            return [self._minibatch(self.train, key)]
        inputs, targets = self._whole_batches(self.kept, self.train, key)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], (inputs, targets)) for i in range(self._batches(self.kept)[1])]

    def after_generation(self, fixed: Arrays, seen: tuple[()]) -> Arrays:
        """Return `fixed`: statistics stay frozen."""
        del seen
        return fixed

    def measure(self, params: Arrays) -> Measured:
        """Return loss and metric of one network over the whole validation and test parts."""
        validation_at_once, test_at_once = self.measured_at_once
        validation = self.over(params, self.validation, validation_at_once)
        test = self.over(params, self.test, test_at_once) if self.test is not None else (None, None)
        return Measured(*validation, *test)

    @property
    def measured_at_once(self) -> tuple[int, int]:
        """How many examples of the validation and of the test part go through the network at once."""
        if self.kept is not None:
            return self.kept.validation, self.kept.test
        return MEASURED_AT_ONCE * self.batch_size, MEASURED_AT_ONCE * self.batch_size

    def _minibatch(self, data: Examples, key: jax.Array) -> Examples:
        if self.batch_size >= size(data):
            return data
        index = jax.random.randint(key, (self.batch_size,), 0, size(data))
        return jax.tree.map(lambda leaf: leaf[index], data)

    def _batches(self, kept: KeptBatches) -> tuple[int, int]:
        """Return how many whole batches the training part has, and how many of them a generation sees."""
        there = size(self.train) // kept.train
        return there, min(there, max(1, self.batch_size // kept.train))

    def _whole_batches(self, kept: KeptBatches, data: Examples, key: jax.Array) -> Examples:
        there, seen = self._batches(kept)
        index = jax.random.randint(key, (seen,), 0, there) if seen < there else jnp.arange(there)

        def batches(leaf: jax.Array) -> jax.Array:
            return leaf[: there * kept.train].reshape(there, kept.train, *leaf.shape[1:])[index]

        return jax.tree.map(batches, data)

    def over(self, params: Arrays, part: Examples, at_once: int) -> tuple[float, float]:
        """Return loss and metric of one network over a part, `at_once` examples at a time."""
        reading = self.metric()
        total, weights = 0.0, 0.0
        for start in range(0, size(part), at_once):
            inputs, targets = jax.tree.map(lambda leaf, start=start: leaf[start : start + at_once], part)
            outputs, loss = self._measure(params, inputs, targets)
            share, weight = self.weigh(float(loss), outputs, targets)
            total, weights = total + share, weights + weight
            reading.add(outputs, targets)
        return total / weights if weights else math.nan, reading.value()

    def _measure_batch(self, params: Arrays, inputs: Any, targets: Any) -> tuple[Any, jax.Array]:
        outputs = self.network.apply(params, inputs)
        return outputs, jnp.asarray(self.loss(outputs, targets), jnp.float32).reshape(())


def size(examples: Any) -> int:
    """Return the number of examples: the length of the first array in a pytree."""
    return len(jax.tree.leaves(examples)[0])
