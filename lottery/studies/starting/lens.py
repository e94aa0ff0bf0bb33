"""What a report looks at: a network at its start on a few examples, whatever its framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Passed:
    """What one layer gave out for a batch, before its activation.

    Attributes:
        values: [examples, ...].
        gradients: of the network's outputs, summed with random signs, at these values.
        axis: the axis of its units.
    """

    values: Array
    gradients: Array
    axis: int


@dataclass(frozen=True, eq=False)
class Lens:
    """A network at its start, with its mask held, on a few examples. Nothing that is called here changes it.

    Attributes:
        layers: returns what every layer gave out, by the name of its weight, in the order of the pass.
        jacobian: of how many examples to derivatives [examples, outputs, inputs]; None where the inputs are no numbers.
        example_gradients: of how many examples to the gradients of each one's outputs, summed with random signs, at the
            weights that are kept: [examples, weights].
        gradient_norm: of the loss on the batch, over the weights that are kept; None without labels.
        answers: of one number to the outputs with it for every weight that is kept, biases 0.
        paths: log10 of how many paths lead through the mask, and of the synaptic flow; None where that is not known.
        input_correlation: the mean squared correlation of two inputs.
    """

    layers: Callable[[], Mapping[str, Passed]]
    jacobian: Callable[[int], Array] | None
    example_gradients: Callable[[int], Array]
    gradient_norm: Callable[[], float] | None
    answers: Callable[[float], Array]
    paths: Callable[[], tuple[float, float] | None]
    input_correlation: float


def signs(shape: tuple[int, ...]) -> Array:
    """Return the random signs with which outputs are summed: the same for every network of this many outputs."""
    return np.random.default_rng(0).choice(np.array([-1.0, 1.0], np.float32), size=shape)
