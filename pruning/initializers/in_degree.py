"""Variance scaling by the shape of the graph: where several layers meet, each brings a part of the signal."""

from __future__ import annotations

import math

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer
from pruning.starts.distributions import spread
from pruning.starts.weight import Array, Weight


@initializer("dag", source="Chen et al. 2024, equations 8 and 12 (arXiv 2402.17440)")
def dag(weight: Weight, rng: np.random.Generator, *, gain: float = math.sqrt(2), distribution: str = "normal") -> Array:
    """Variance gain² / (d n): d edges meet where the result goes, n live inputs of the unit; n² at the output.

    d is the in-degree of the vertex that the layer leads to, as in equation 12: with that of the vertex that it comes
    from (equation 4, and the published code) the signal grows wherever layers meet.

    Args:
        weight: the masked weight.
        rng: the generator.
        gain: √2 is the paper's, for ReLU.
        distribution: see `unit-scaled`.

    Raises:
        BadValue: where the weight stands in the network was not found.
    """
    if weight.place is None:
        raise BadValue(
            f"where {weight} stands in the network was not found, and init 'dag' scales by that: use unit-scaled"
        )
    live = np.maximum(1, weight.by_output(weight.fan_in)).astype(float)
    scale = live if weight.place.last else np.sqrt(live)
    return gain / math.sqrt(weight.place.in_degree) / scale * spread(distribution, rng, weight.shape)
