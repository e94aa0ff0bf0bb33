"""Replicates of one run: which seeds were trained together, which are finished, and seeds that are added later.

RUN/replicates.json     {"together": [[0, 1, 2], [3, 4]]}

The rounding of networks that are trained stacked depends on what else is in the stack. So seeds that were asked for in
one call stay one group for ever: a group that was cut off is gone on with as it was begun, and seeds that are added
later make a group of their own. A seed folder that was brought from elsewhere is a group by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lottery.runs.directory import RunDirectory
from pruning.disk.files import read_json, write_json
from pruning.errors import FileFormatError

Groups = tuple[tuple[int, ...], ...]


def seeds_of(run: RunDirectory) -> list[int]:
    """Return the seeds that a run holds anything of, sorted.

    >>> for name in ("seed-10", "seed-2", "seed-07", "notes"):
    ...     (tmp / name).mkdir()
    >>> seeds_of(RunDirectory(tmp))
    [2, 10]
    """
    names = (folder.name for folder in run.path.glob("seed-*"))
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"seed-(0|[1-9][0-9]{0,9})", name)))


def groups_of(run: RunDirectory) -> Groups:
    """Return the seeds of a run, in the groups that are trained together.

    Raises:
        FileFormatError: a `replicates.json` that holds something else.
    """
    path = run.path / "replicates.json"
    if not path.exists():  # one call made the whole run
        found = tuple(seeds_of(run))
        return (found,) if found else ()
    stored = read_json(path)
    groups = stored.get("together") if isinstance(stored, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, list) and _are_seeds(group) for group in groups):
        raise FileFormatError(f"{path}: expected the seeds that are trained together, like {{'together': [[0, 1]]}}")
    listed = {seed for group in groups for seed in group}
    alone = [(seed,) for seed in seeds_of(run) if seed not in listed]
    return (*map(tuple, groups), *alone)


def join(run: RunDirectory, seeds: Sequence[int]) -> Groups:
    """Return the groups of a run, with the seeds that are new to it as one more; written down before they are trained.

    >>> from pathlib import Path
    >>> tmp.mkdir(exist_ok=True)
    >>> join(RunDirectory(tmp), [0, 1, 2]), join(RunDirectory(tmp), [0, 1, 2, 3, 4])
    (((0, 1, 2),), ((0, 1, 2), (3, 4)))
    """
    groups = groups_of(run)
    known = {seed for group in groups for seed in group}
    new = tuple(seed for seed in seeds if seed not in known)
    if new:
        groups = (*groups, new)
        write_json(run.path / "replicates.json", {"together": groups})
    return groups


def depth(run: RunDirectory, seed: int) -> tuple[int, bool]:
    """Return how many levels of a seed are there, without a gap, and whether the last of them diverged."""
    count, diverged = 0, False
    while not diverged and run.has(seed, count):
        diverged = run.read_record(seed, count)["diverged"] is not None
        count += 1
    return count, diverged


def _are_seeds(values: Sequence[object]) -> bool:
    return bool(values) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )
