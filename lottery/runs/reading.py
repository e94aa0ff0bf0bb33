"""Reading a run directory back, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lottery.results.levels import EarlyStop, Level, Replicate, Search, replicated
from lottery.results.winning import choose_winner, matching_tolerance
from lottery.runs.directory import RunDirectory
from lottery.runs.records import read_environment, read_summary
from lottery.runs.replicates import depth, groups_of
from pruning.disk.files import is_there
from pruning.errors import FileFormatError


def read_search(path: Path) -> Search:
    """Return what a run directory holds so far; levels count once every replicate that began them is there.

    Raises:
        FileFormatError: not a run directory, or one without a single finished level.
    """
    if is_there(path / "mask.safetensors"):
        raise FileFormatError(f"{path}: a ticket directory, not a run (its run may be {path.parent.parent})")
    if not is_there(path / "config.json") or not is_there(path / "environment.json"):
        raise FileFormatError(f"{path}: not a run directory (no config.json and environment.json)")
    run = RunDirectory(path)
    seeds, unfinished = _comparable(run)
    levels: list[Level] = []
    alive = seeds
    while alive and all(run.has(seed, len(levels)) for seed in alive):
        number = len(levels)
        levels.append(Level(number, tuple(read_replicate(run, seed, number) for seed in alive)))
        alive = [replicate.seed for replicate in levels[-1].alive]
    if not levels:
        raise FileFormatError(f"{path}: no level is finished yet")
    _check_same_tensors(levels)
    first = run.read_record(seeds[0], 0)
    metric, config = first["metric"], replicated(first["config"], levels[0])
    tolerance = matching_tolerance(
        levels[0], config.get("tolerance"), metric["is_fraction"], first.get("validation_examples")
    )
    winner, reason = choose_winner(levels, tolerance.value, metric["higher_is_better"])
    finished = read_summary(path)
    stopped = finished.get("stopped") if finished else f"not finished: level {levels[-1].level} is the last on disk"
    if unfinished:
        stopped = f"{f'{stopped}; ' if stopped else ''}not finished: {', '.join(f'seed {seed}' for seed in unfinished)}"
    return Search(
        run=path,
        levels=tuple(levels),
        winner=winner,
        reason=reason,
        stopped=stopped,
        tolerance=tolerance,
        metric=metric["name"],
        higher_is_better=metric["higher_is_better"],
        is_fraction=metric["is_fraction"],
        test_examples=finished.get("test_examples"),
        seconds=run_seconds(run, levels),
        device=read_environment(path)["device"],
        config=config,
        coverage=first.get("coverage"),
    )


def _comparable(run: RunDirectory) -> tuple[list[int], list[int]]:
    """Return the seeds of the groups with the most levels, and those of groups that were interrupted; sorted."""
    depths = {seed: depth(run, seed) for group in groups_of(run) for seed in group}
    reached: dict[tuple[int, ...], int] = {}
    for group in groups_of(run):
        alive = [depths[seed][0] for seed in group if not depths[seed][1]]
        reached[group] = min(alive) if alive else max(depths[seed][0] for seed in group)
    ended = {group for group in reached if all(depths[seed][1] for seed in group)}
    furthest = max(reached.values(), default=0)
    whole = [group for group in reached if reached[group] == furthest or group in ended]
    seeds = sorted(seed for group in whole for seed in group)
    return seeds, sorted(set(depths) - set(seeds))


def _check_same_tensors(levels: list[Level]) -> None:
    """Raise `FileFormatError` where two trainings of one search say that other tensors are pruned."""
    first = levels[0].replicates[0]
    for replicate in (each for level in levels for each in level.replicates):
        if replicate.layers.keys() != first.layers.keys() or replicate.prunable != first.prunable:
            raise FileFormatError(f"{replicate.path / 'config.json'}: other prunable tensors than in {first.path}")


def read_replicate(run: RunDirectory, seed: int, level: int) -> Replicate:
    """Return one replicate of a level, as it lies on disk."""
    record = run.read_record(seed, level)
    nan = float("nan")

    def number(value: float | None) -> float:
        return nan if value is None else value

    return Replicate(
        seed=seed,
        level=level,
        validation=number(record["validation"]),
        test=record["test"],
        steps=record["steps"],
        final_validation=number(record["final"]["validation"]),
        final_test=record["final"]["test"],
        early_stop=EarlyStop(**record["early_stop"]) if record["early_stop"] else None,
        diverged=record["diverged"],
        kept=record["kept"],
        prunable=record["prunable"],
        layers=record["layers"],
        path=run.level_path(seed, level),
        history=run.read_history(seed, level),
    )


def run_seconds(run: RunDirectory, levels: Sequence[Level]) -> float:
    """Return the training time of all levels, each by the attempt that finished it."""
    return sum(run.read_record(r.seed, level.level)["seconds"] for level in levels for r in level.replicates)
