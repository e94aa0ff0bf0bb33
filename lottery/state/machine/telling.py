"""Messages that are always shown: that a result comes from an earlier run, and what of it is resumed from where."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from pruning.disk.plain import plain


def say(text: str) -> None:
    """Print one line on standard error, where there is one; it does not break a progress bar."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError), tqdm.external_write_mode(file=sys.stderr):
            print(f"lottery: {plain(text)}", file=sys.stderr, flush=True)


def say_stored(
    path: Path,
    stored: Sequence[Path],
    wanted: int,
    again: str,
    follows: str = "the others follow",
    complete: str = "nothing was trained",
) -> None:
    """Tell that trainings were stored before; says nothing where none was.

    Args:
        path: where they lie.
        stored: the ticket directories, of those that were asked for, that were there.
        wanted: how many were asked for.
        again: the option that starts over.
        follows: what is trained now, where some are stored.
        complete: what is not done, and perhaps what is, where all of them are stored.
    """
    if not stored:
        return
    latest = max((folder / "config.json").stat().st_mtime for folder in stored)
    made = f"made {datetime.fromtimestamp(latest).strftime('%Y-%m-%d %H:%M')}"
    if len(stored) >= wanted:
        say(f"{path}: complete, a stored result, {made}; {complete} ({again} starts over)")
    else:
        say(f"{path}: resumed, {len(stored)} of {wanted} trainings are stored, {made}; {follows} ({again} starts over)")


def numbers(values: Iterable[int]) -> str:
    """Return whole numbers in order, those that follow each other as a range.

    >>> numbers([0, 2, 3, 4, 7, 8])
    '0, 2–4, 7, 8'
    """
    ordered, runs = sorted(set(values)), []
    for value in ordered:
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def seeds_follow(levels_of: Mapping[int, int], levels: int, checkpoint: bool = False) -> str:
    """Say for each replicate where it goes on.

    Args:
        levels_of: how many levels of each seed are stored; `levels` where nothing is left to train.
        levels: how many levels there are.
        checkpoint: whether the first of the levels that follow was interrupted while it wrote checkpoints.

    >>> seeds_follow({0: 6, 1: 6, 2: 13, 3: 0}, 13)
    'seeds 0, 1 go on at level 6 of 12, seed 3 begins, seed 2 is complete'
    >>> seeds_follow({0: 0}, 13, checkpoint=True)
    'seed 0 goes on at level 0 of 12, from its last checkpoint'
    """
    alike: dict[int, list[int]] = {}
    for seed, count in levels_of.items():
        alike.setdefault(min(count, levels), []).append(seed)
    # What goes on first stands first; what begins and what is complete follow.
    order = sorted(alike, key=lambda count: (count == levels, count == 0, count))
    deepest = min((count for count in order if count < levels), default=0)
    parts: list[str] = []
    for count in order:
        seeds = alike[count]
        who, one = f"seed{'s' * (len(seeds) > 1)} {numbers(seeds)}", len(seeds) == 1
        kept = checkpoint and count == deepest
        if count == levels:
            parts.append(f"{who} {'is' if one else 'are'} complete")
        elif count or kept:
            at = f"{who} {'goes' if one else 'go'} on at level {count} of {levels - 1}"
            parts.append(at + (", from its last checkpoint" if kept else ""))
        else:
            parts.append(f"{who} {'begins' if one else 'begin'}")
    return ", ".join(parts)


def what_follows(missing: Iterable[tuple[str, int, int]]) -> str:
    """Say which trainings follow of a study.

    Args:
        missing: what they are (a control, a copy), seed and level of each.

    >>> what_follows([("reinit", 0, 7), ("reinit", 1, 7), ("random-mask", 0, 11)])
    'now reinit (level 7 of seeds 0, 1), random-mask (level 11 of seed 0)'
    """
    alike: dict[str, list[tuple[int, int]]] = {}
    for what, seed, level in missing:
        alike.setdefault(what, []).append((seed, level))
    parts: list[str] = []
    for what, places in alike.items():
        seeds, levels = {seed for seed, _ in places}, {level for _, level in places}
        which = f"level{'s' * (len(levels) > 1)} {numbers(levels)} of seed{'s' * (len(seeds) > 1)} {numbers(seeds)}"
        parts.append(f"{what} ({which})")
    return f"now {', '.join(parts)}"
