"""Starts that never stretch a difference: 1-Lipschitz layers."""

from __future__ import annotations

import numpy as np

from pruning.initializers import initializer, leave_lookups
from pruning.starts.layers.lipschitz import aol_scales, sll_scales
from pruning.starts.weight import Array, Weight


@initializer("aol", source="Prach & Lampert 2022, Almost-Orthogonal Layers (arXiv 2208.03160)")
def aol(weight: Weight, rng: np.random.Generator) -> Array:
    """A Gaussian draw whose inputs are scaled under the mask until the layer is 1-Lipschitz.

    Deep stacks of such layers lose their signal: `pruning.starts.layers.lipschitz.decay` says how much a layer keeps.
    """
    leave_lookups(weight)
    drawn = _masked(weight, rng)
    return drawn * weight.by_input(aol_scales(drawn))


@initializer("sll", source="Araujo et al. 2023 (arXiv 2303.03169)")
def sll(weight: Weight, rng: np.random.Generator) -> Array:
    """A Gaussian draw whose units are scaled under the mask until x - 2 Wᵀ relu(W x + b) is 1-Lipschitz.

    The paper's layer x - 2 Wᵀ diag(T) relu(W x + b) is this one with √T taken into the weights (and the bias).
    """
    leave_lookups(weight)
    drawn = _masked(weight, rng)
    return drawn * weight.by_output(np.sqrt(sll_scales(drawn)))


def _masked(weight: Weight, rng: np.random.Generator) -> Array:
    return np.where(weight.keep, rng.standard_normal(weight.shape), 0)
