"""What takes part in a transfer table: runs of one architecture, and the level of each whose tickets move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lottery.results.comparison import telling_names
from lottery.results.levels import Level, Search
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_search
from pruning.errors import BadValue
from pruning.ladder import check_fraction

# In this order they name a way of finding and training tickets best.
_TELLING = ("trainer", "strategy", "data", "criterion", "rewind")


@dataclass(frozen=True)
class Member:
    """A run in a transfer table: the tickets that it gives, and its way of training.

    Attributes:
        label: the settings that tell it from the others.
        search: all of it.
        level: the level whose tickets take part.
    """

    label: str
    search: Search
    level: Level

    @property
    def run(self) -> RunDirectory:
        """Where it lies."""
        return RunDirectory(self.search.run)


def choose_members(paths: Sequence[Path], density: float | None, level: int | None) -> tuple[Member, ...]:
    """Return the runs with the level of each that takes part (see `lottery.studies.transfer.table.transfer`).

    Raises:
        BadValue: fewer than two runs, other architectures, a level that is not there, or no replicate seed in common.
    """
    if len(paths) < 2:
        raise BadValue(f"a transfer table takes two or more runs, not {len(paths)}")
    searches = [read_search(path) for path in paths]
    names = telling_names([search.config for search in searches], _TELLING)
    pruned = [[each for each in search.levels[1:] if each.alive] for search in searches]
    for search, levels in zip(searches, pruned, strict=True):
        if not levels:
            raise BadValue(f"{search.run}: no pruned level is finished, so there is no ticket to transfer")
    if density is None:
        density = max(min(each.density for each in levels) for levels in pruned)
    else:
        check_fraction("density", density, zero=False)
    chosen = [_chosen(search.run, levels, density, level) for search, levels in zip(searches, pruned, strict=True)]
    members = tuple(map(Member, names, searches, chosen))
    for other in members[1:]:
        _check_architecture(members[0], other)
    for source in members:
        for target in members:
            common_seeds(source, target)
    return members


def _chosen(run: Path, levels: Sequence[Level], density: float, number: int | None) -> Level:
    if number is None:
        return min(levels, key=lambda each: abs(math.log(each.density / density)))
    found = [each for each in levels if each.level == number]
    if not found:
        raise BadValue(f"{run}: there is no ticket of level {number}; it has levels 1 to {levels[-1].level}")
    return found[0]


def _check_architecture(one: Member, other: Member) -> None:
    """Raise `BadValue` where tickets of one run do not fit the other."""
    models = [str(member.search.config.get("model")) for member in (one, other)]
    if models[0] != models[1]:
        raise BadValue(f"tickets move between runs of one architecture: their model differs ({', '.join(models)})")
    weights, masks = ([_shapes(member, kind) for member in (one, other)] for kind in ("weights", "masks"))
    for kind, (here, there) in (("tensors", weights), ("prunable tensors", masks)):
        for name in [*here, *there]:
            if here.get(name) != there.get(name):
                raise BadValue(
                    f"tickets move between runs of one architecture: of the {kind}, {name!r} is "
                    f"{_words(here.get(name))} in {one.label!r} and {_words(there.get(name))} in {other.label!r}"
                )


def _shapes(member: Member, kind: str) -> dict[str, tuple[int, ...]]:
    seed, number = member.level.alive[0].seed, member.level.level
    if kind == "masks":
        return member.run.read_mask(seed, number).shapes()
    return {name: value.shape for name, value in member.run.read_rewound(seed, number).items()}


def _words(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def common_seeds(source: Member, target: Member) -> list[int]:
    """Return the seeds that both have a ticket of."""
    here, there = ({replicate.seed for replicate in member.level.alive} for member in (source, target))
    if not here & there:
        raise BadValue(
            f"tickets are trained under their own seed, and {source.label!r} and {target.label!r} have none in common "
            f"({sorted(here)} and {sorted(there)})"
        )
    return sorted(here & there)
