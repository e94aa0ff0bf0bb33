"""Orthogonal starts: of matrices, of centre taps, of the filters of a unit."""

from __future__ import annotations

import math

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer, leave_lookups
from pruning.starts.centre import centre_of
from pruning.starts.gains import gain_before
from pruning.starts.haar import haar, haar_bases, masked_haar
from pruning.starts.weight import Array, Weight


@initializer("orthogonal", source="Saxe et al. 2014 (arXiv 1312.6120)")
def orthogonal(
    weight: Weight, rng: np.random.Generator, *, gain: float | None = None, activation: str | None = None
) -> Array:
    """A random orthogonal matrix [out, in · taps] times gain; under a mask, masked and divided by √density.

    The shorter side is orthonormal. A mask keeps the mean square and breaks the isometry: at density d what is left is
    about √d of the orthogonal matrix and √(1 − d) of Gaussian noise. `exact-orthogonal` is isometric at any density,
    and chooses its own mask; the isometry repair comes close to it under a given one.
    """
    leave_lookups(weight)
    return masked_haar(weight, rng, gain_before(weight, gain, activation))


@initializer("delta-orthogonal", source="Xiao et al. 2018 (arXiv 1806.05393)")
def delta_orthogonal(
    weight: Weight, rng: np.random.Generator, *, gain: float | None = None, activation: str | None = None
) -> Array:
    """A convolution's centre tap is orthogonal times gain, its other taps are 0: it keeps the norm of any input.

    What has no taps is drawn as `orthogonal` draws it.

    Raises:
        BadValue: fewer outputs than inputs, a kernel without a centre, or a centre tap that the mask removes.
    """
    leave_lookups(weight)
    wanted = gain_before(weight, gain, activation)
    if weight.taps == 1:
        return masked_haar(weight, rng, wanted)
    centre = centre_of(weight, "delta-orthogonal")
    if weight.outputs < weight.inputs:
        raise BadValue(
            f"delta-orthogonal needs as many outputs as inputs: {weight} has {weight.outputs} for {weight.inputs}; "
            "init 'orthogonal' serves it"
        )
    if removed := int((~weight.keep[centre]).sum()):
        raise BadValue(
            f"delta-orthogonal needs every centre tap: the mask removes {removed} of {weight.outputs * weight.inputs} "
            f"of {weight}; init 'exact-orthogonal' chooses a mask that fits, 'orthogonal' takes any"
        )
    values = np.zeros(weight.shape)
    values[centre] = haar(rng, weight.outputs, weight.inputs) * wanted
    return values


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
