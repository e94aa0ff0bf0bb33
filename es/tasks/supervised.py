"""Learning from examples: classification and regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from es.coordinates import Space
from es.network import Arrays, Network
from es.population import population_outputs
from es.tasks import Measured

BatchFunction = Callable[[Any, Any], jax.Array]
Examples = tuple[Any, Any]

# Without a population eight times as many examples fit.
MEASURED_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Supervised:
    """Fitness on minibatches; all members of a generation see the same examples.

    Attributes:
        network: what is trained.
        space: its evolved parameters.
        train: inputs and targets, pytrees of arrays with the examples along the first axis.
        validation: likewise.
        test: likewise, or None.
        loss: `loss(outputs, targets)` returns a scalar.
        metric: likewise.
        batch_size: examples a generation, drawn with replacement; the whole part where it has no more.
        params: all parameters and buffers of such a network, for `flops` alone.
    """

    network: Network
    space: Space
    train: Examples
    validation: Examples
    test: Examples | None
    loss: BatchFunction
    metric: BatchFunction
    batch_size: int
    params: Arrays = field(repr=False)
    _measure: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_measure", jax.jit(self._measure_batch))

    @property
    def flops(self) -> float:
        """Operations of one forward pass over a minibatch, counted by the compiler."""
        batch = jax.tree.map(lambda leaf: leaf[: self.batch_size], self.train[0])
        costs: Any = jax.jit(self.network.apply).lower(dict(self.params), batch).cost_analysis()
        return float(costs["flops"])

    @property
    def data(self) -> Examples:
        """The training part."""
        return self.train

    def losses(
        self, data: Examples, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
    ) -> tuple[jax.Array, tuple[()]]:
        """Return every member's loss on one minibatch; examples leave nothing behind."""
        inputs, targets = self._minibatch(data, key)
        outputs = population_outputs(self.network.apply, self.space, where, population, fixed, inputs)
        return jax.vmap(lambda own: self.loss(own, targets))(outputs).astype(jnp.float32), ()

    def absorb(self, fixed: Arrays, seen: tuple[()]) -> Arrays:
        """Return `fixed`: statistics stay frozen."""
        del seen
        return fixed

    def measure(self, params: Arrays) -> Measured:
        """Return loss and metric of one network over the whole validation and test parts."""
        validation = self._over(params, self.validation)
        test = self._over(params, self.test) if self.test is not None else (None, None)
        return Measured(*validation, *test)

    def _minibatch(self, data: Examples, key: jax.Array) -> Examples:
        if self.batch_size >= size(data):
            return data
        index = jax.random.randint(key, (self.batch_size,), 0, size(data))
        return jax.tree.map(lambda leaf: leaf[index], data)

    def _over(self, params: Arrays, part: Examples) -> tuple[float, float]:
        examples, at_once = size(part), MEASURED_AT_ONCE * self.batch_size
        total = np.zeros(2)
        for start in range(0, examples, at_once):
            batch = jax.tree.map(lambda leaf, start=start: leaf[start : start + at_once], part)
            total += np.asarray(self._measure(params, *batch), np.float64) * size(batch)
        loss, metric = total / examples
        return float(loss), float(metric)

    def _measure_batch(self, params: Arrays, inputs: Any, targets: Any) -> jax.Array:
        outputs = self.network.apply(params, inputs)
        values = [self.loss(outputs, targets), self.metric(outputs, targets)]
        return jnp.stack([jnp.asarray(value, jnp.float32).reshape(()) for value in values])


def size(examples: Any) -> int:
    """Return the number of examples: the length of the first array in a pytree."""
    return len(jax.tree.leaves(examples)[0])
