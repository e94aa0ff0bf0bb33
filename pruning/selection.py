"""Selection: the only place that removes weights.

Exact counts, deterministic ties (the earlier position wins), nesting, a guard against emptied tensors, and patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.patterns import Pattern, Tile
from pruning.patterns.tiling import Tiles, best_of_tiles, spread, tiles_of
from pruning.patterns.unstructured import UNSTRUCTURED
from pruning.scores import CHUNK, checked, chunks

Arrays = Mapping[str, NDArray[Any]]
Marks = Mapping[str, NDArray[np.bool_]]


def select(
    scores: Arrays,
    mask: Mask,
    target: int | Mapping[str, int],
    guard: int = 1,
    pattern: Pattern = UNSTRUCTURED,
) -> Mask:
    """Keep exactly `target` of the weights that `mask` keeps: those with the highest scores.

    Beside the scores this takes the memory of one copy of the survivors' scores and of a few masks.

    Args:
        scores: name to real array of the mask's shape; higher is kept. Scores of removed weights are ignored.
        mask: the current mask; the result is nested in it.
        target: how many weights stay: one number lets all scores compete in one pool, one for each tensor only
            within their tensor.
        guard: the fewest weights that every tensor with survivors keeps (its best ones); 0 switches it off.
            It shifts weights between tensors and never changes the total.
        pattern: which weights stay or go together; it makes the target a bound that is never exceeded.
            Where at most n weights of a tile stay, the level keeps the target or all that the pattern allows.
            Where tiles stay whole, they are taken in the order of their survivors' mean score until the next one
            would exceed the target; the guard sets the best tiles of every tensor aside first.

    Returns:
        The new mask. Of equal scores the one at the earlier position stays (tensors in the mask's order, then
        row-major), so that the result is the same on every machine.

    Raises:
        BadValue: a target out of range, a NaN score of a surviving weight, a guard that cannot be met, or a tensor
            that the pattern does not divide.
        MaskMismatch: scores whose names or shapes are not the mask's.

    >>> mask = Mask({"a": [1, 1, 1], "b": [1, 1, 1]})
    >>> scores = {"a": np.array([3.0, 2.0, 1.0]), "b": np.array([9.0, 9.0, 9.0])}
    >>> select(scores, mask, 3, guard=0).counts(), select(scores, mask, 3).counts()
    ({'a': 0, 'b': 3}, {'a': 1, 'b': 2})
    """
    values = {name: checked(name, scores, keep) for name, keep in mask.items()}
    tiles = {name: pattern.tile(name, keep.shape) for name, keep in mask.items()}
    if isinstance(target, Mapping) and set(target) != set(mask):
        raise BadValue("a target for each tensor must name the tensors of the mask, all of them")
    if all(tile.most is None and tile.area == 1 for tile in tiles.values()):
        return Mask(_single(values, mask, target, guard))
    axes = {name: pattern.axes_of(name, keep.shape) for name, keep in mask.items()}
    values = {name: axes[name].matrix(array) for name, array in values.items()}
    held = {name: axes[name].matrix(keep) for name, keep in mask.items()}
    if _stays_whole(tiles):
        kept = _whole_tiles(values, held, target, guard, tiles)
    else:
        held = {name: best_of_tiles(values[name], keep, tiles[name]) for name, keep in held.items()}
        target = _at_most(target, {name: int(np.count_nonzero(keep)) for name, keep in held.items()})
        kept = _single(values, held, target, guard)
    return Mask({name: axes[name].tensor(kept[name], keep.shape) for name, keep in mask.items()})


def check_targets(targets: Sequence[Target], mask: Mask, guard: int, pattern: Pattern) -> None:
    """Raise `BadValue` for the first level at which whole tiles for the guard may exceed the target.

    Args:
        targets: how many weights each level keeps, level 0 first.
        mask: the mask of level 0.
        guard: the fewest weights that every tensor keeps.
        pattern: which weights stay or go together.
    """
    tiles = {name: pattern.tile(name, keep.shape) for name, keep in mask.items()}
    if guard == 0 or not _stays_whole(tiles):
        return
    held = {name: pattern.axes_of(name, keep.shape).matrix(keep) for name, keep in mask.items()}
    needed = {name: _set_aside(tiles_of(name, keep, keep, tiles[name]).sizes, guard) for name, keep in held.items()}
    for level, target in enumerate(targets[1:], start=1):
        if isinstance(target, Mapping):
            kept = {repr(name): (target[name], needed[name]) for name in mask}
        else:
            kept = {"the network": (target, sum(needed.values()))}
        for where, (count, least) in kept.items():
            if count < least:
                raise BadValue(
                    f"level {level} would keep {count} weights of {where}, less than the {least} of the fewest units "
                    f"that pattern {pattern.name!r} and a guard of {guard} ask for; prune less"
                )


def _stays_whole(tiles: Mapping[str, Tile]) -> bool:
    """Say whether weights stay or go together in any of the tensors."""
    return any(tile.most is None and tile.area > 1 for tile in tiles.values())


def _single(values: Arrays, candidates: Marks, target: int | Mapping[str, int], guard: int) -> Marks:
    """Mark the highest of the candidates, each weight for itself."""
    if not isinstance(target, Mapping):
        return _highest(values, candidates, int(target), guard)
    kept: dict[str, NDArray[np.bool_]] = {}
    for name, keep in candidates.items():
        size = int(np.count_nonzero(keep))
        if target[name] < min(guard, size):
            raise BadValue(f"{name!r} would keep {target[name]} weights; the guard asks for {guard}")
        if target[name] > size:
            raise BadValue(f"{target[name]} of {size} surviving weights cannot be kept in {name!r}")
        kept |= _highest({name: values[name]}, {name: keep}, int(target[name]), 0)
    return kept


def _at_most(target: int | Mapping[str, int], sizes: Mapping[str, int]) -> int | dict[str, int]:
    """Return the target, or what there is where that is less."""
    if isinstance(target, Mapping):
        return {name: min(target[name], size) for name, size in sizes.items()}
    return min(target, sum(sizes.values()))


def _check_pool(target: int, sizes: Mapping[str, int], reserved: int, guard: int) -> None:
    if target > sum(sizes.values()):
        raise BadValue(f"{target} of {sum(sizes.values())} surviving weights cannot be kept")
    if target < reserved:
        raise BadValue(
            f"{target} weights cannot leave {guard} in each of {len(sizes)} tensors; prune less or lower the guard"
        )


def _highest(values: Arrays, keep: Marks, target: int, guard: int) -> dict[str, NDArray[np.bool_]]:
    """Mark the `target` highest of a pool, `guard` of each tensor among them; of equal values the earlier ones."""
    sizes = {name: int(np.count_nonzero(held)) for name, held in keep.items()}
    reserved = {name: min(guard, size) for name, size in sizes.items()}
    total, spare = sum(sizes.values()), target - sum(reserved.values())
    _check_pool(target, sizes, sum(reserved.values()), guard)
    if target in (0, total):
        return {name: held & (target > 0) for name, held in keep.items()}
    threshold, lowest = _thresholds(values, keep, sizes, reserved, target)
    # Reserving each tensor's best and filling up from the rest equals selecting globally and then repairing.
    above = {name: _count(values[name] > threshold, held) for name, held in keep.items()}
    ties = {name: _count(values[name] == threshold, held) for name, held in keep.items()}
    free_above = {name: max(0, above[name] - reserved[name]) for name in keep}
    spare -= sum(free_above.values())
    marked = {}
    for name, held in keep.items():
        share = min(max(0, above[name] + ties[name] - reserved[name]) - free_above[name], spare)
        spare -= share
        count = reserved[name] + free_above[name] + share
        least = threshold if count <= above[name] + ties[name] else lowest[name]
        marked[name] = _first(values[name], held, least, count)
    return marked


def _thresholds(
    values: Arrays, keep: Marks, sizes: Mapping[str, int], reserved: Mapping[str, int], target: int
) -> tuple[Any, dict[str, Any]]:
    """Return the lowest score that stays in the pool, and the lowest of each tensor's reserved weights."""
    pool = np.empty(sum(sizes.values()), np.result_type(*values.values()))
    end, lowest = 0, {}
    for name, size in sizes.items():
        part = pool[end : end + size]
        end, done = end + size, 0
        for scores, held in chunks(values[name], keep[name]):
            chosen = scores[held]
            part[done : done + len(chosen)] = chosen
            done += len(chosen)
        if reserved[name]:
            part.partition(size - reserved[name])
            lowest[name] = part[size - reserved[name]]
            # Reserved weights stay whatever they score: in the pool they are the highest.
            part[size - reserved[name] :] = np.inf if pool.dtype.kind == "f" else np.iinfo(pool.dtype).max
    pool.partition(len(pool) - target)
    return pool[len(pool) - target], lowest


def _first(values: NDArray[Any], keep: NDArray[np.bool_], threshold: Any, count: int) -> NDArray[np.bool_]:
    """Mark what is above a threshold, and of what equals it the first, `count` in all."""
    marked = (values > threshold) & keep
    missing = count - int(np.count_nonzero(marked))
    flat = marked.reshape(-1)
    for start, (scores, held) in enumerate(chunks(values, keep)):
        ties = np.flatnonzero((scores == threshold) & held)[:missing]
        flat[start * CHUNK + ties] = True
        missing -= len(ties)
    return marked


def _whole_tiles(
    values: Arrays, mask: Marks, target: int | Mapping[str, int], guard: int, tiles: Mapping[str, Tile]
) -> dict[str, NDArray[np.bool_]]:
    """Mark whole tiles, those with the highest mean scores, without exceeding the target."""
    left = {name: tiles_of(name, values[name], keep, tiles[name]) for name, keep in mask.items()}
    target = _at_most(target, {name: int(found.sizes.sum()) for name, found in left.items()})
    if isinstance(target, Mapping):
        chosen = {}
        for name, found in left.items():
            chosen |= _highest_tiles({name: found}, target[name], guard)
    else:
        chosen = _highest_tiles(left, target, guard)
    return {name: spread(chosen[name], keep, tiles[name]) for name, keep in mask.items()}


def _highest_tiles(left: Mapping[str, Tiles], target: int, guard: int) -> dict[str, NDArray[np.bool_]]:
    """Choose tiles of a pool in order of score until the next would exceed the target, the guard's before others."""
    scores = np.concatenate([found.scores for found in left.values()])
    sizes = np.concatenate([found.sizes for found in left.values()])
    ends = np.cumsum([len(found.sizes) for found in left.values()])
    reserved = np.zeros(len(sizes), bool)
    for part in np.split(np.arange(len(sizes)), ends[:-1]):
        ranked = part[np.argsort(-scores[part], kind="stable")]
        ranked = ranked[sizes[ranked] > 0]
        held = np.cumsum(sizes[ranked])
        reserved[ranked[: int(np.searchsorted(held, min(guard, held[-1]))) + 1] if guard and len(ranked) else []] = True
    spare = target - int(sizes[reserved].sum())
    if spare < 0:
        raise BadValue(
            f"{target} weights cannot leave the best unit in each of {', '.join(left)}, which hold {target - spare}; "
            "prune less or use smaller units"
        )
    ranked = np.argsort(-scores, kind="stable")
    ranked = ranked[(sizes[ranked] > 0) & ~reserved[ranked]]
    fitting = int(np.searchsorted(np.cumsum(sizes[ranked]), spare, side="right"))
    reserved[ranked[:fitting]] = True
    return dict(zip(left, np.split(reserved, ends[:-1]), strict=True))


def _set_aside(sizes: NDArray[np.intp], guard: int) -> int:
    """Return the most weights that tiles set aside for the guard may hold, whatever their order."""
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 0
    largest, total = int(sizes.max()), int(sizes.sum())
    if largest == sizes.min():
        return largest * -(-min(guard, total) // largest)
    return min(total, guard - 1 + largest)


def _count(marked: NDArray[np.bool_], keep: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(np.logical_and(marked, keep, out=marked)))
