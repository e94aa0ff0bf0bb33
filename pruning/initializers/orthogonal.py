"""Orthogonal starts."""

from __future__ import annotations

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer, leave_lookups
from pruning.starts.centre import centre_of
from pruning.starts.gains import gain_before
from pruning.starts.haar import haar, masked_haar
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
