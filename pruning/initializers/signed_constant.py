"""One size for all weights of a unit."""

from __future__ import annotations

import numpy as np

from pruning.initializers import initializer, leave_lookups
from pruning.starts.distributions import spread
from pruning.starts.fans import fans
from pruning.starts.gains import gain_before
from pruning.starts.weight import Array, Weight


@initializer("signed-constant", source="Ramanujan et al. 2020 (arXiv 1911.13299); OpenLTH's `binary`")
def signed_constant(
    weight: Weight, rng: np.random.Generator, *, gain: float | None = None, activation: str | None = None
) -> Array:
    """The signs of a Gaussian draw, all weights of a unit of size gain / √fan_in of its live connections."""
    leave_lookups(weight)
    size = gain_before(weight, gain, activation) / np.sqrt(np.maximum(1, fans(weight, "in")))
    return np.copysign(size.astype(np.float32), spread("normal", rng, weight.shape))
