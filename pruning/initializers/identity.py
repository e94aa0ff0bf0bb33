"""Layers that begin by handing on what they get."""

from __future__ import annotations

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import initializer, leave_lookups
from pruning.starts.centre import centre_of
from pruning.starts.weight import Array, Weight


@initializer("identity", source="Le et al. 2015 (arXiv 1504.00941); Zagoruyko & Komodakis 2017 (arXiv 1706.00388)")
def identity(weight: Weight, rng: np.random.Generator, *, gain: float = 1.0) -> Array:
    """Output i is input i times gain: the identity matrix, or a convolution's centre tap (Dirac); all else is 0.

    With gain 0.5 this is the identity of a hyperbolic layer (van Spengler et al. 2023, arXiv 2303.14027).

    Raises:
        BadValue: a kernel without a centre, or a live unit whose own diagonal entry the mask removes.
    """
    leave_lookups(weight)
    centre = centre_of(weight, "identity")
    diagonal = np.eye(weight.outputs, weight.inputs, dtype=bool)
    removed = int((diagonal & ~weight.keep[centre] & (weight.fan_in > 0)[:, None]).sum())
    if removed:
        raise BadValue(
            f"identity needs the diagonal: the mask removes {removed} of {int(diagonal.sum())} entries of {weight}; "
            "keep them, or take init 'unit-scaled', which serves any mask"
        )
    values = np.zeros(weight.shape)
    values[centre] = gain * diagonal
    return values
