"""Variances that keep a learning rate right while a network grows wider (μP) or sparser (SμPar)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pruning.initializers import LeftAlone, initializer
from pruning.starts.distributions import spread
from pruning.starts.gains import gain_before
from pruning.starts.scaling.widths import Base, base_of
from pruning.starts.weight import Array, Weight

_SOURCE = "Yang et al. 2022, tables 3 and 8 (arXiv 2203.03466)"


@initializer("mup", source=_SOURCE)
def mup(
    weight: Weight,
    rng: np.random.Generator,
    *,
    base_width: int | None = None,
    width: int | None = None,
    sigma: float | None = None,
    gain: float | None = None,
    activation: str | None = None,
    output_multiplier: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    distribution: str = "normal",
) -> Array:
    """Variance σ² / m_d of hidden weights, m_d the width by that of a base network; the mask does not count.

    The settings are those of `smupar`.
    """
    base = base_of("mup", base_width, 1.0, width, output_multiplier, inputs, outputs)
    return _std(weight, base, sigma, gain, activation) * spread(distribution, rng, weight.shape)


@initializer("smupar", source="Dey et al. 2024, table 1 (arXiv 2405.15743)")
def smupar(
    weight: Weight,
    rng: np.random.Generator,
    *,
    base_width: int | None = None,
    base_density: float = 1.0,
    width: int | None = None,
    sigma: float | None = None,
    gain: float | None = None,
    activation: str | None = None,
    output_multiplier: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    distribution: str = "normal",
) -> Array:
    """Variance σ² / (m_d m_ρ) of hidden weights: width and density by those of a base network.

    Tables (embeddings) stay as the model made them, and so do biases and normalization. The output weight has variance
    σ² where the model divides its outputs by m_d itself (`pruning.starts.scaling.multipliers`, table 1), and σ² / m_d²,
    which computes the same, where it does not. The table is for dense input and output weights; where the mask covers
    these too, their variances are σ² / m_ρ and, at the output, divided by m_ρ²: derived here by the same argument, that
    live inputs count. Learning rates are the other half (`pruning.starts.scaling.learning_rates`).

    Args:
        weight: the masked weight.
        rng: the generator.
        base_width: units of the base's hidden layers.
        base_density: the base's density.
        width: that of the network; by default, every weight's own number of inputs.
        sigma: standard deviation of the weights of the base; by default gain / √(live inputs there).
        gain: see `unit-scaled`.
        activation: see `unit-scaled`.
        output_multiplier: whether the model divides its outputs by m_d itself.
        inputs: name patterns of weights at the network's inputs, where a forward pass does not show them.
        outputs: name patterns of weights at its outputs.
        distribution: see `unit-scaled`.
    """
    base = base_of("smupar", base_width, base_density, width, output_multiplier, inputs, outputs)
    return _std(weight, base, sigma, gain, activation) * spread(distribution, rng, weight.shape)


def _std(weight: Weight, base: Base, sigma: float | None, gain: float | None, activation: str | None) -> float:
    role = base.role(weight)
    if role == "table":
        raise LeftAlone(f"{weight} is a table, whose start does not depend on width or density")
    wider = 1.0 if role == "input" else base.wider(weight.inputs, f"inputs of {weight}")
    denser = base.denser(weight.density)
    if sigma is None:
        live = weight.inputs * weight.taps / wider * (base.density if base.by_density else 1.0)
        sigma = gain_before(weight, gain, activation) / math.sqrt(live)
    if role == "output":
        return sigma / (denser if base.multiplied else wider * denser)
    return sigma / math.sqrt(wider * denser)
