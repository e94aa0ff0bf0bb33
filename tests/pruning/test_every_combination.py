"""The promises of a level, for every criterion × scope × pattern, on networks of several kinds.

What is registered is tested: a new criterion, scope or pattern is covered the moment its file exists.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pruning.criteria import CRITERIA
from pruning.jobs import Budget, Job, Trained
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.patterns import PATTERNS, Pattern, check_pattern, expected_params, get_pattern
from pruning.scopes import SCOPES, PrunableTensors, Schedule, place
from pruning.selection import check_targets, select

MODELS = {
    "mlp": {"fc1.weight": (16, 24), "fc2.weight": (8, 16), "fc3.weight": (4, 8)},
    "conv": {"conv1.weight": (8, 4, 3, 3), "conv2.weight": (8, 8, 1, 1), "fc.weight": (4, 8)},
    "attention": {"in_proj.weight": (24, 8), "out_proj.weight": (8, 8), "up.weight": (16, 8), "down.weight": (8, 16)},
}
LEVELS, GUARD = 3, 1


def patterns() -> Iterator[Pattern]:
    """Every pattern, with two choices of sizes where it has any: 1, 2, … and 2, 4, …"""
    for name in PATTERNS.names():
        params = expected_params(name)
        for unit in (1, 2) if params else (1,):
            yield get_pattern(name, {key: unit * (place + 1) for place, key in enumerate(params)})


def ladder(scope: str, shapes: dict[str, tuple[int, ...]]) -> list[Target]:
    densities = {"*": 0.5} if "layer_densities" in SCOPES[scope].value.reads else {}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return place(scope, Schedule(levels=LEVELS, guard=GUARD, layer_densities=densities), PrunableTensors(shapes, sizes))


@functools.cache
def network(model: str) -> tuple[Trained, Job]:
    """Coarse random weights, so that many scores are equal, and whatever any criterion needs to see."""
    shapes = MODELS[model]
    rng = np.random.Generator(np.random.PCG64(7))
    params = {name: rng.standard_normal(shape).round(1).astype(np.float32) for name, shape in shapes.items()}
    start = {name: rng.standard_normal(shape).round(1).astype(np.float32) for name, shape in shapes.items()}
    needs = set[str]().union(*(entry.value.needs for entry in CRITERIA))
    evidence = {
        need: {name: rng.standard_normal(shape).round(1).astype(np.float32) for name, shape in shapes.items()}
        for need in sorted(needs - {"std"})
    }
    std = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    trained = Trained(params, history=[], std=std, evidence=evidence)
    return trained, Job(start, Mask.dense(shapes), 3, Budget(0, 1))


def in_tiles(array: np.ndarray, pattern: Pattern, name: str) -> np.ndarray:
    """Return (tiles, weights of a tile), in row-major order."""
    tile, out = pattern.tile(name, array.shape), array.shape[0]
    cut = array.reshape(out // tile.height, tile.height, -1, tile.width)
    return cut.transpose(0, 2, 1, 3).reshape(-1, tile.area)


def is_whole(pattern: Pattern, mask: Mask) -> bool:
    tiles = [pattern.tile(name, shape) for name, shape in mask.shapes().items()]
    return any(tile.most is None and tile.area > 1 for tile in tiles)


def allowed(pattern: Pattern, mask: Mask) -> dict[str, int]:
    """How many survivors of each tensor the pattern lets stay."""
    counts = {}
    for name, keep in mask.items():
        most = pattern.tile(name, keep.shape).most
        held = in_tiles(keep, pattern, name).sum(axis=1)
        counts[name] = int((held if most is None else np.minimum(held, most)).sum())
    return counts


def assert_counts(after: Mask, before: Mask, target: Target, pattern: Pattern) -> None:
    """Exactly the target, or what the pattern allows; with whole tiles at most one tile less."""
    pools = [([name], target[name]) for name in after] if isinstance(target, dict) else [(list(after), target)]
    for names, goal in pools:
        kept = sum(after.counts()[name] for name in names)
        goal = min(goal, sum(allowed(pattern, before)[name] for name in names))
        if not is_whole(pattern, after):
            assert kept == goal
            continue
        removed = [in_tiles(before[name] & ~after[name], pattern, name).sum(axis=1).max() for name in names]
        assert kept <= goal and (max(removed) == 0 or goal - kept < max(removed))


def assert_order(after: Mask, before: Mask, scores: Mapping[str, Any], pattern: Pattern) -> None:
    """Within a tensor (and within a tile that holds so many) the best stay, of equal ones the earlier."""
    for name, keep in after.items():
        tile = pattern.tile(name, keep.shape)
        held, was, score = (in_tiles(array[name], pattern, name) for array in (after, before, scores))
        if tile.most is not None:
            assert (held.sum(axis=1) <= tile.most).all()
            groups = zip(held, was, score, strict=True)
        elif tile.area > 1:
            sizes = was.sum(axis=1)
            assert np.isin(held.sum(axis=1) - sizes, (0, *-sizes)).all()
            assert ((held == was).all(axis=1) | ~held.any(axis=1)).all()
            means = np.divide(np.where(was, score.astype(float), 0.0).cumsum(axis=1)[:, -1], np.maximum(sizes, 1))
            groups = [(np.any(held, axis=1), np.any(was, axis=1), means)]
        else:
            groups = [(keep.ravel(), before[name].ravel(), scores[name].ravel())]
        stays: Any
        for stays, lived, ranking in groups:
            ranked = np.argsort(-ranking.astype(float), kind="stable")
            ranked = ranked[lived[ranked]]
            assert stays[ranked[: int(stays.sum())]].all()


@pytest.mark.parametrize("pattern", list(patterns()), ids=lambda p: "-".join([p.name, *map(str, p.params.values())]))
@pytest.mark.parametrize("scope", SCOPES.names())
@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_every_level_keeps_the_promises(criterion, scope, pattern):
    for model, shapes in MODELS.items():
        trained, job = network(model)
        mask = Mask.dense(shapes)
        targets = ladder(scope, shapes)
        check_pattern(pattern, shapes)
        check_targets(targets, mask, GUARD, pattern)
        assert len(targets) == LEVELS + 1
        for target in targets[1:]:
            masked = replace(trained, params=mask.apply(trained.params))
            scores = CRITERIA[criterion].value.score(masked, replace(job, mask=mask))
            after = select(scores, mask, target, GUARD, pattern)
            assert after.issubset(mask)
            assert min(after.counts().values()) >= GUARD
            assert_counts(after, mask, target, pattern)
            assert_order(after, mask, scores, pattern)
            # the same in another memory order and whatever the scores of removed weights are
            other = {n: np.asfortranarray(np.where(mask[n], s.astype(float), np.nan)) for n, s in scores.items()}
            assert select(other, mask, target, GUARD, pattern) == after
            mask = after
        assert mask.kept < Mask.dense(shapes).kept
