"""The size of weights from the mask, unit by unit."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pruning.initializers import initializer, leave_lookups
from pruning.starts.distributions import spread
from pruning.starts.fans import Fan, fans
from pruning.starts.gains import Rule, gain_before
from pruning.starts.weight import Array, Weight


@initializer("unit-scaled", source="Evci et al. 2022, section 3.1 (arXiv 2010.03533); He et al. 2015 at density 1")
def unit_scaled(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    rule: Rule = "forward",
    sigma: float | Literal["optimal"] = 1.0,
    fan: Fan | None = None,
    distribution: str = "normal",
) -> Array:
    """Variance gain² / fan of the live connections of every unit, so that a mask does not shrink the signal.

    `rule` chooses what the gain keeps: `forward` (signals of standard deviation `sigma`, VI3NR), `backward` (their
    gradients: over the live outputs, where no other `fan` is named) or `kumar` (signals near 0).
    """
    leave_lookups(weight)
    fan = fan or ("out" if rule == "backward" else "in")
    std = gain_before(weight, gain, activation, rule, sigma) / np.sqrt(np.maximum(1, fans(weight, fan)))
    return std.astype(np.float32) * spread(distribution, rng, weight.shape)


@initializer("signed-constant", source="Ramanujan et al. 2020 (arXiv 1911.13299); OpenLTH's `binary`")
def signed_constant(
    weight: Weight, rng: np.random.Generator, *, gain: float | None = None, activation: str | None = None
) -> Array:
    """The signs of a Gaussian draw, all weights of a unit of size gain / √fan_in of its live connections."""
    leave_lookups(weight)
    size = gain_before(weight, gain, activation) / np.sqrt(np.maximum(1, fans(weight, "in")))
    return np.copysign(size.astype(np.float32), spread("normal", rng, weight.shape))
