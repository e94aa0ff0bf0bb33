"""The small start of transformers."""

from __future__ import annotations

import math

import numpy as np

from pruning.initializers import initializer
from pruning.starts.distributions import spread
from pruning.starts.fans import fans
from pruning.starts.weight import Array, Weight


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
