"""Fans of a masked weight: how many live connections a unit sums over, or an input goes to."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pruning.errors import unknown
from pruning.starts.weight import Weight

Fan = Literal["in", "out", "average"]


def fans(weight: Weight, which: Fan) -> NDArray[np.float64]:
    """Return the fan of every connection, so that it broadcasts over the weight; taps are counted.

    Args:
        weight: the masked weight.
        which: `in` (live connections of the unit), `out` (live connections of the input) or `average` of both.

    Raises:
        UnknownName: another word.

    >>> weight = Weight("w", np.array([[True, False, False], [True, True, True]]))
    >>> fans(weight, "in").tolist(), fans(weight, "out").tolist()
    ([[1.0], [3.0]], [[2.0, 1.0, 1.0]])
    """
    if which not in get_args(Fan):
        raise unknown("fan", which, get_args(Fan))
    into = weight.by_output(weight.fan_in.astype(float))
    out = weight.by_input(weight.fan_out.astype(float))
    return into if which == "in" else out if which == "out" else (into + out) / 2


def full_fan(weight: Weight, which: Fan) -> float:
    """Return the fan that every connection would have without a mask; taps are counted.

    Raises:
        UnknownName: another word than `in`, `out` or `average`.

    >>> full_fan(Weight("w", np.zeros((8, 4, 3, 3), bool)), "average")
    54.0
    """
    if which not in get_args(Fan):
        raise unknown("fan", which, get_args(Fan))
    into, out = weight.inputs * weight.taps, weight.outputs * weight.taps
    return float(into if which == "in" else out if which == "out" else (into + out) / 2)
