"""Masks under the names of a model, as plain mappings: every place that applies a mask starts here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import MaskMismatch
from pruning.masks.names import match_names

Keeps = Mapping[str, NDArray[np.bool_]]


def fitted(keeps: Keeps, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.bool_]]:
    """Return the arrays of a mask under the names of a model, checked against its shapes.

    Wrapper prefixes (`module.`, `_orig_mod.`) are understood on either side.

    Args:
        keeps: by name, a boolean array; True keeps.
        shapes: the model's tensor shapes by name.

    Raises:
        MaskMismatch: a name that the model lacks (with the closest ones) or another shape.

    >>> fitted({"module.fc.weight": np.array([True, False])}, {"fc.weight": (2,)})
    {'fc.weight': array([ True, False])}
    """
    matched = match_names(keeps, shapes)
    for name, target in matched.items():
        if tuple(shapes[target]) != keeps[name].shape:
            raise MaskMismatch(
                f"{target!r} has shape {tuple(shapes[target])} in the model and {keeps[name].shape} in the mask"
            )
    return {target: keeps[name] for name, target in matched.items()}


def apply_array(values: NDArray[Any], keep: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return `values` with a +0 wherever `keep` is False; a `keep` of None keeps everything.

    A product would leave -0 for negative weights and NaN for infinite ones.

    >>> apply_array(np.array([-2.0, np.inf]), np.array([True, False]))
    array([-2.,  0.])
    """
    return values if keep is None else np.where(keep, values, np.zeros((), values.dtype))
