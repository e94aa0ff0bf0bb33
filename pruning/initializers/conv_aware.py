"""Convolution-aware initialization."""

from __future__ import annotations

import math

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer, leave_lookups
from pruning.starts.gains import gain_before
from pruning.starts.haar import haar_bases, masked_haar
from pruning.starts.weight import Array, Weight


@initializer("conv-aware", source="Aghajanyan 2017 (arXiv 1702.06295)")
def conv_aware(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    noise: float = 0.05,
) -> Array:
    """The filters of a unit are orthonormal as spectra, plus a little noise; its live weights' squares add up to gain².

    As many inputs of a unit as there are taps have orthogonal filters; the next ones are a new basis. The spectra are
    complex: real ones, as the paper's code has them, make every filter symmetric about its centre, and leave out 4 of
    9 directions of a 3 × 3 kernel. By Parseval a uniformly random basis of complex spectra is one of the filters
    themselves, so that none needs to be transformed. What has no taps is drawn as `orthogonal` draws it.

    Args:
        weight: what is drawn.
        rng: where chance comes from.
        gain: square root of what a unit's squares add up to; that of the activation, if not given.
        activation: in place of the one that was found.
        noise: standard deviation of what is added to each weight of a filter of norm 1.

    Raises:
        BadValue: noise below 0.
    """
    if noise < 0:
        raise BadValue(f"init_params.noise is {noise:g}: a standard deviation is 0 or more")
    leave_lookups(weight)
    wanted = gain_before(weight, gain, activation)
    if weight.taps == 1:
        return masked_haar(weight, rng, wanted)
    bases_each = math.ceil(weight.inputs / weight.taps)
    bases = haar_bases(rng, weight.outputs * bases_each, weight.taps)
    filters = bases.reshape(weight.outputs, bases_each * weight.taps, weight.taps)[:, : weight.inputs]
    if noise:
        filters = filters + noise * rng.standard_normal(filters.shape)
    values = np.where(weight.keep, filters.reshape(weight.shape), 0)
    norms = np.sqrt((values**2).sum(axis=tuple(range(1, values.ndim))))
    # A unit without live inputs has norm 0; its row stays zero.
    return values * weight.by_output(wanted / np.where(norms == 0, 1, norms))
