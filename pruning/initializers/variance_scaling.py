"""Variance scaling by fans of the whole matrix, as without a mask."""

from __future__ import annotations

import math

import numpy as np

from pruning.initializers import initializer
from pruning.starts.distributions import spread
from pruning.starts.weight import Array, Weight


@initializer("glorot-normal", source="Glorot & Bengio 2010; Frankle & Carbin 2019, figure 2 (Gaussian Glorot)")
def glorot_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Gaussian with variance 2 / (fan_in + fan_out), whatever the mask."""
    fans = (weight.inputs + weight.outputs) * weight.taps
    return math.sqrt(2 / fans) * spread("normal", rng, weight.shape)


@initializer("kaiming-normal", source="He et al. 2015 (arXiv 1502.01852)")
def kaiming_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Gaussian with variance 2 / fan_in for ReLU networks, whatever the mask."""
    return math.sqrt(2 / (weight.inputs * weight.taps)) * spread("normal", rng, weight.shape)


@initializer("lecun-normal", source="LeCun et al. 1998; Flax's default kernel init (truncated at two deviations)")
def lecun_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Truncated Gaussian with variance 1 / fan_in, whatever the mask."""
    return math.sqrt(1 / (weight.inputs * weight.taps)) * spread("truncated", rng, weight.shape)
