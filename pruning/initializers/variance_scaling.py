"""Variance scaling: by fans of the whole matrix, as without a mask, and by those of the live connections."""

from __future__ import annotations

import math

import numpy as np

from pruning.initializers import initializer, leave_lookups
from pruning.starts.distributions import spread
from pruning.starts.fans import Fan, fans, full_fan
from pruning.starts.gains import gain_before
from pruning.starts.weight import Array, Weight


@initializer("glorot-normal", source="Glorot & Bengio 2010; Frankle & Carbin 2019, figure 2 (Gaussian Glorot)")
def glorot_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Gaussian with variance 2 / (fan_in + fan_out), whatever the mask."""
    leave_lookups(weight)
    return _scaled(1 / full_fan(weight, "average"), "normal", weight, rng)


@initializer("kaiming-normal", source="He et al. 2015 (arXiv 1502.01852)")
def kaiming_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Gaussian with variance 2 / fan_in for ReLU networks, whatever the mask."""
    leave_lookups(weight)
    return _scaled(2 / full_fan(weight, "in"), "normal", weight, rng)


@initializer("lecun-normal", source="LeCun et al. 1998; Flax's default kernel init (truncated at two deviations)")
def lecun_normal(weight: Weight, rng: np.random.Generator) -> Array:
    """Truncated Gaussian with variance 1 / fan_in, whatever the mask."""
    leave_lookups(weight)
    return _scaled(1 / full_fan(weight, "in"), "truncated", weight, rng)


@initializer(
    "torch-default", source="PyTorch, nn.Linear and nn.Conv2d; under a mask: Lasby et al. 2024 (arXiv 2305.02299)"
)
def torch_default(weight: Weight, rng: np.random.Generator) -> Array:
    """Uniform within 1 / √fan_in of the live connections: how PyTorch starts linear layers and convolutions.

    Recurrent, attention and transposed layers follow the same rule here; in PyTorch each has a rule of its own.
    """
    leave_lookups(weight)
    bound = 1 / np.sqrt(np.maximum(1, fans(weight, "in")))
    # A uniform distribution of variance 1 ends at √3.
    return (bound / math.sqrt(3)).astype(np.float32) * spread("uniform", rng, weight.shape)


@initializer("layer-scaled", source="Liu et al. 2019 (arXiv 1810.05270); Ramanujan et al. 2020 (arXiv 1911.13299)")
def layer_scaled(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    fan: Fan = "in",
    distribution: str = "normal",
) -> Array:
    """The dense draw of variance gain² / fan, divided by √density: right on average over a layer, not for each unit."""
    leave_lookups(weight)
    # A layer without a live weight is all zeros, whatever it is divided by.
    variance = gain_before(weight, gain, activation) ** 2 / full_fan(weight, fan) / (weight.density or 1.0)
    return _scaled(variance, distribution, weight, rng)


@initializer("small-init", source="Nguyen & Salazar 2019, Transformers without Tears (arXiv 1910.05895)")
def small_init(weight: Weight, rng: np.random.Generator) -> Array:
    """Attention: variance 2 / (5 fan_in); other layers: 2 / (fan_in + fan_out); embeddings: uniform within 0.01.

    Fans are those of the live connections. A feed-forward layer four times as wide has the attention's variance.
    """
    if weight.kind == "embedding":
        return np.float32(0.01 / math.sqrt(3)) * spread("uniform", rng, weight.shape)
    if weight.kind in ("query", "key", "value", "attention output"):
        fan = 5 * fans(weight, "in")
    else:
        fan = 2 * fans(weight, "average")
    return np.sqrt(2 / np.maximum(1, fan)).astype(np.float32) * spread("normal", rng, weight.shape)


def _scaled(variance: float, distribution: str, weight: Weight, rng: np.random.Generator) -> Array:
    return np.float32(math.sqrt(variance)) * spread(distribution, rng, weight.shape)
