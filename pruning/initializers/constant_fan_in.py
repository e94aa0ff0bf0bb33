"""Masks in which every unit sums over the same number of inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pruning.initializers import Chosen, initializer
from pruning.initializers.unit_scaled import unit_scaled
from pruning.starts.weight import Weight


@initializer("constant-fan-in", source="Lasby et al. 2024, section 3 (arXiv 2305.02299)", chooses_mask=True)
def constant_fan_in(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    distribution: str = "normal",
) -> Chosen:
    """Every unit gets the same number of random inputs, with weights of variance gain² / that number.

    Where the weights cannot be divided so, units drawn at random get one more. Inputs of a kernel are its channels at
    all its taps. Weights are those of `unit-scaled` under that mask.

    Args:
        weight: only the number of entries that its mask keeps is used.
        rng: for everything random.
        gain: by default that of the activation.
        activation: by default the one that was found.
        distribution: `normal`, `uniform` or `truncated`.
    """
    # Another generator, so that the weights at density 1 are those of unit-scaled, bit for bit.
    (choosing,) = rng.spawn(1)
    least, over = divmod(int(weight.keep.sum()), max(1, weight.outputs))
    fan_in = np.full(weight.outputs, least)
    fan_in[choosing.permutation(weight.outputs)[:over]] += 1
    keep = np.zeros((weight.outputs, weight.inputs * weight.taps), bool)
    # The inputs of every unit in a random order.
    order = choosing.random(keep.shape).argsort(axis=1)
    np.put_along_axis(keep, order, np.arange(keep.shape[1]) < fan_in[:, None], axis=1)
    keep = keep.reshape(weight.shape)
    values = unit_scaled(replace(weight, keep=keep), rng, gain=gain, activation=activation, distribution=distribution)
    return Chosen(values, keep)
