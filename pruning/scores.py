"""Scores as criteria return them: one array of real numbers for each tensor of a mask, checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, MaskMismatch

CHUNK = 1 << 20


def checked(name: str, scores: Any, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a tensor's scores in a type that NumPy can partition.

    Args:
        name: the name of the tensor.
        scores: the scores that a criterion returned.
        keep: the tensor's mask.

    Raises:
        BadValue: no mapping, no real numbers, or NaN at a survivor.
        MaskMismatch: none of this name, or another shape.

    >>> checked("w", {"w": [True, False]}, np.array([True, True]))
    array([1, 0], dtype=uint8)
    """
    if not isinstance(scores, Mapping):
        raise BadValue(f"a criterion returns one array of scores for each name, not {type(scores).__name__}")
    if name not in scores or np.shape(scores[name]) != keep.shape:
        got = np.shape(scores[name]) if name in scores else "none"
        raise MaskMismatch(f"scores of {name!r}: expected shape {keep.shape}, got {got}")
    values = np.asarray(scores[name])
    if values.dtype.kind not in "iuf":  # bfloat16, booleans and others
        values = _as_numbers(name, values)
    for part, held in chunks(values, keep) if values.dtype.kind == "f" else ():
        if np.isnan(part).any() and np.isnan(part[held]).any():
            raise BadValue(
                f"the scores of {name!r} contain NaN; a diverged network is never pruned, nor one whose criterion "
                "divides by 0"
            )
    return values


def _as_numbers(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "c":
        raise BadValue(f"the scores of {name!r} are complex numbers, which have no order")
    try:
        return values.astype(np.uint8 if values.dtype.kind == "b" else np.float32)
    except (TypeError, ValueError) as error:
        raise BadValue(f"the scores of {name!r} are no numbers but {values.dtype}") from error


def chunks(values: NDArray[Any], keep: NDArray[np.bool_]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Yield flat parts of a tensor's scores and of its mask: to work on them takes little memory."""
    flat, held = values.reshape(-1), keep.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK], held[start : start + CHUNK]
