"""Rows that must not be emptied: a weight that is divided by the norms of its rows is 0 / 0 where a row is all 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.scores import checked

Rows = Mapping[str, tuple[int, ...]]


def keeping_rows(scores: Mapping[str, NDArray[Any]], mask: Mask, rows: Rows) -> Mapping[str, NDArray[Any]]:
    """Return the scores with the best survivor of every row above all others.

    Args:
        scores: by name, as a criterion returned them.
        mask: which weights survive.
        rows: of some tensors, the axes that number rows.

    Raises:
        BadValue: no mapping, no real numbers, or NaN at a survivor, of a tensor that has rows.
        MaskMismatch: no scores of such a tensor, or another shape.

    >>> scores = {"w": np.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> keeping_rows(scores, Mask({"w": [[1, 1], [1, 0]]}), {"w": (0,)})["w"].tolist()
    [[1.0, inf], [inf, 4.0]]
    """
    named = [name for name in rows if name in mask]
    raised = {name: _above(checked(name, scores, mask[name]), mask[name], rows[name]) for name in named}
    return {**scores, **raised} if raised else scores


def alive_rows(keep: NDArray[np.bool_], axes: tuple[int, ...]) -> int:
    """Return how many rows hold a survivor.

    >>> alive_rows(np.array([[True, True], [False, False]]), (0,))
    1
    """
    return int(np.count_nonzero(keep.any(tuple(axis for axis in range(keep.ndim) if axis not in axes))))


def require_rows(before: Mask, after: Mask, rows: Rows) -> None:
    """Raise `BadValue` where a row has lost its last survivor: fewer weights stay than there are rows.

    >>> require_rows(Mask({"w": [[1, 1], [1, 0]]}), Mask({"w": [[1, 0], [1, 0]]}), {"w": (0,)})
    """
    for name, axes in rows.items():
        if name in before and (needed := alive_rows(before[name], axes)) > alive_rows(after[name], axes):
            raise BadValue(
                f"{name!r} would keep {after.counts()[name]:,} weights, and its weight is divided by the norms of "
                f"{needed:,} rows, of which none may be empty: prune less, or name it in `skip`"
            )


def _above(values: NDArray[Any], keep: NDArray[np.bool_], axes: tuple[int, ...]) -> NDArray[Any]:
    order = (*axes, *(axis for axis in range(values.ndim) if axis not in axes))
    count = int(np.prod([values.shape[axis] for axis in axes]))
    raised = values.astype(np.result_type(values.dtype, np.float32))
    seen = raised.transpose(order).reshape(count, -1).copy()
    held = keep.transpose(order).reshape(count, -1)
    best = np.where(held, seen, -np.inf).argmax(axis=1)
    alive = np.flatnonzero(held.any(axis=1))
    seen[alive, best[alive]] = np.inf
    return np.ascontiguousarray(seen.reshape([values.shape[axis] for axis in order]).transpose(np.argsort(order)))
