"""Controls of a search, read back: in its own statistical frame, one number for each seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lottery.results.levels import Level, Replicate, mean
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_replicate, read_search
from pruning.errors import FileFormatError


@dataclass(frozen=True)
class Ablated:
    """One kind of control of a search.

    Attributes:
        kind: its name, followed by the other rewind point or the initializer where there is one.
        levels: one replicate for each seed, with the mean of its repeats; its path is that of the first repeat.
        repeats: how often every ticket was ablated.
        every: all trainings, one `Level` for each repeat, by level.
        drawn_by: the initializer that was named for it, with its settings; empty where it was drawn as the search drew
            its own.
    """

    kind: str
    levels: tuple[Level, ...]
    repeats: int
    every: Mapping[int, tuple[Level, ...]]
    drawn_by: Mapping[str, Any] = field(default_factory=dict)


def read_ablations(run: str | Path) -> list[Ablated]:
    """Return every kind of control that is stored with a run, sorted by name; none is an empty list."""
    folder = Path(run) / "ablations"
    kinds = sorted(path.name for path in folder.glob("*") if (path / "repeat-0").is_dir())
    return [read_ablation(run, kind) for kind in kinds]


def read_ablation(run: str | Path, kind: str, levels: Iterable[int] | None = None) -> Ablated:
    """Return one kind of control of a run.

    Args:
        run: the run directory.
        kind: its folder's name.
        levels: which; by default those that are complete.

    Raises:
        FileFormatError: no such control, or no level of it is complete.
    """
    folders = sorted((Path(run) / "ablations" / kind).glob("repeat-*"), key=lambda path: int(path.name[7:]))
    repeats = [RunDirectory(path) for path in folders]
    search = read_search(Path(run))
    wanted = set(levels) if levels is not None else None
    every: dict[int, tuple[Level, ...]] = {}
    for level in search.levels:
        seeds = [replicate.seed for replicate in level.alive]
        if wanted is not None and level.level not in wanted:
            continue
        done = [r for r in repeats if seeds and all(r.has(seed, level.level) for seed in seeds)]
        if done:
            every[level.level] = tuple(
                Level(level.level, tuple(read_replicate(r, seed, level.level) for seed in seeds)) for r in done
            )
    if not every:
        raise FileFormatError(f"{run}: no level of the ablation {kind!r} is finished")
    first = next(iter(every.values()))[0]
    drawn_by = repeats[0].read_record(first.replicates[0].seed, first.level).get("drawn_by", {})
    averaged = tuple(_averaged(repeats) for repeats in every.values())
    return Ablated(kind, averaged, max(map(len, every.values())), every, drawn_by)


def with_plain(asked: Sequence[Ablated], stored: Sequence[Ablated]) -> list[Ablated]:
    """Return controls, and before each that an initializer drew the stored one that was drawn as the search's own.

    Args:
        asked: controls.
        stored: every control of the same run.
    """
    found: dict[str, Ablated] = {}
    for each in asked:
        plain = [one for one in stored if each.drawn_by and not one.drawn_by and each.kind.startswith(f"{one.kind}-")]
        found |= {one.kind: _at(one, [level.level for level in each.levels]) for one in plain if one.kind not in found}
        found[each.kind] = each
    return [each for each in found.values() if each.levels]


def _at(control: Ablated, levels: Sequence[int]) -> Ablated:
    kept = tuple(level for level in control.levels if level.level in levels)
    return dataclasses.replace(control, levels=kept, every={level.level: control.every[level.level] for level in kept})


def _averaged(repeats: Sequence[Level]) -> Level:
    """Return one level in which each seed counts once: the mean over its repeats that did not diverge."""
    seeds = [replicate.seed for replicate in repeats[0].replicates]
    rows = {seed: [r for level in repeats for r in level.replicates if r.seed == seed] for seed in seeds}
    return Level(repeats[0].level, tuple(_mean_replicate(replicates) for replicates in rows.values()))


def _mean_replicate(replicates: Sequence[Replicate]) -> Replicate:
    alive = [replicate for replicate in replicates if replicate.diverged is None]
    if not alive:
        return replicates[0]
    tests = [replicate.test for replicate in alive if replicate.test is not None]
    final_tests = [replicate.final_test for replicate in alive if replicate.final_test is not None]
    return dataclasses.replace(
        alive[0],
        validation=mean([replicate.validation for replicate in alive]),
        test=mean(tests) if tests else None,
        final_validation=mean([replicate.final_validation for replicate in alive]),
        final_test=mean(final_tests) if final_tests else None,
        kept=round(mean([replicate.kept for replicate in alive])),
        layers={name: mean([replicate.layers[name] for replicate in alive]) for name in alive[0].layers},
    )
