"""Selection: the only place that removes weights.

Exact counts, deterministic ties (the earlier position wins), nesting, and a guard against emptied tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask

SCOPES = ("global", "layer")


def select(
    scores: Mapping[str, NDArray[Any]],
    mask: Mask,
    target: int | Mapping[str, int],
    guard: int = 1,
) -> Mask:
    """Keep exactly `target` of the weights that `mask` keeps: those with the highest scores.

    Args:
        scores: name to real array of the mask's shape; higher is kept. Scores of removed weights are ignored.
        mask: the current mask; the result is nested in it.
        target: how many weights stay: one number lets all scores compete in one pool, one for each tensor only
            within their tensor.
        guard: the fewest weights that every tensor with survivors keeps (its best ones); 0 switches it off.
            It shifts weights between tensors and never changes the total.

    Returns:
        The new mask. Of equal scores the one at the earlier position stays (tensors in the mask's order, then
        row-major), so that the result is the same on every machine.

    Raises:
        BadValue: a target out of range, a NaN score of a surviving weight, or a guard that cannot be met.
        MaskMismatch: scores whose names or shapes are not the mask's.

    >>> mask = Mask({"a": [1, 1, 1], "b": [1, 1, 1]})
    >>> scores = {"a": np.array([3.0, 2.0, 1.0]), "b": np.array([9.0, 9.0, 9.0])}
    >>> select(scores, mask, 3, guard=0).counts(), select(scores, mask, 3).counts()
    ({'a': 0, 'b': 3}, {'a': 1, 'b': 2})
    """
    survivors = {name: _survivor_scores(name, scores, mask) for name in mask}
    if not isinstance(target, Mapping):
        kept = _split(_select_pool(list(survivors.values()), int(target), guard), survivors)
    else:
        if set(target) != set(mask):
            raise BadValue("a target for each tensor must name the tensors of the mask, all of them")
        kept = {}
        for name, values in survivors.items():
            if target[name] < min(guard, len(values)):
                raise BadValue(f"{name!r} would keep {target[name]} weights; the guard asks for {guard}")
            if target[name] > len(values):
                raise BadValue(f"{target[name]} of {len(values)} surviving weights cannot be kept in {name!r}")
            kept[name] = _highest(values, int(target[name]))
    return Mask({name: _scatter(mask[name], kept[name]) for name in mask})


def _survivor_scores(name: str, scores: Mapping[str, NDArray[Any]], mask: Mask) -> NDArray[Any]:
    if name not in scores or np.shape(scores[name]) != mask[name].shape:
        got = np.shape(scores[name]) if name in scores else "none"
        raise MaskMismatch(f"scores of {name!r}: expected shape {mask[name].shape}, got {got}")
    values = np.asarray(scores[name])[mask[name]]
    if values.dtype.kind not in "biuf":  # bfloat16 and other types that NumPy cannot partition
        values = values.astype(np.float32)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise BadValue(f"the scores of {name!r} contain NaN; a diverged network is never pruned")
    return values


def _select_pool(survivors: list[NDArray[Any]], target: int, guard: int) -> NDArray[np.bool_]:
    pool = np.concatenate(survivors)
    reserved = np.concatenate([_highest(values, min(guard, len(values))) for values in survivors])
    if target > len(pool):
        raise BadValue(f"{target} of {len(pool)} surviving weights cannot be kept")
    spare = target - int(np.count_nonzero(reserved))
    if spare < 0:
        raise BadValue(
            f"{target} weights cannot leave {guard} in each of {len(survivors)} tensors; prune less or lower the guard"
        )
    # Reserving each tensor's best and filling up from the rest equals selecting globally and then repairing.
    free = ~reserved
    reserved[free] = _highest(pool[free], spare)
    return reserved


def _highest(values: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mark the `count` highest of a flat array; of equal values the earlier ones."""
    size = len(values)
    if count == 0 or count == size:
        return np.full(size, count == size)
    threshold = np.partition(values, size - count)[size - count]
    marked = values > threshold
    ties = np.flatnonzero(values == threshold)
    marked[ties[: count - int(np.count_nonzero(marked))]] = True
    return marked


def _split(pool: NDArray[np.bool_], survivors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    ends = np.cumsum([len(values) for values in survivors.values()])
    return dict(zip(survivors, np.split(pool, ends[:-1]), strict=True))


def _scatter(before: NDArray[np.bool_], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    after = np.zeros(before.shape, bool)
    after[before] = kept
    return after
