"""How long a few ways to do the same take: all of them in turn in each round, and the median of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from pruning.sparse.choosing.spread import Spread

LEAST, MOST = 5, 40
MARGIN, NARROW = 0.95, 0.7
# What takes longer goes through more memory than any cache holds.
_SHORT = 0.02


def race(runs: Mapping[str, Callable[[], object]], device: torch.device, seconds: float) -> dict[str, float]:
    """Return the median seconds of every run (see `rounds`).

    >>> list(race({"nothing": lambda: None}, torch.device("cpu"), 0.0))
    ['nothing']
    """
    return {name: statistics.median(each) for name, each in rounds(runs, device, seconds).items()}


def fastest(
    runs: Mapping[str, Callable[[], object]], dense: str, device: torch.device, seconds: float
) -> tuple[str, dict[str, float]]:
    """Return the name of the fastest run, and the median seconds of all: `dense` unless another is faster for certain.

    What is hardly faster in one measurement may be slower in the next: it must be faster by 5 per cent, and where it
    wins narrowly, again in a second measurement.

    Args:
        runs: the functions to time, by name.
        dense: the name of the run that wins in doubt.
        device: waited for before a clock is read.
        seconds: how long to measure each run, roughly.

    >>> fastest({"dense": lambda: None}, "dense", torch.device("cpu"), 0.0)[0]
    'dense'
    """
    times = race(runs, device, seconds)
    winner = min(times, key=times.__getitem__)
    if MARGIN * times[dense] > times[winner] > NARROW * times[dense]:
        times |= race({name: runs[name] for name in (dense, winner)}, device, 2 * seconds)
    return winner if times[winner] < MARGIN * times[dense] else dense, times


def duel(
    first: Callable[[], object], second: Callable[[], object], device: torch.device, seconds: float
) -> tuple[Spread, Spread]:
    """Return how long two runs take, measured again and pair by pair, so that a disturbance affects both.

    Times by which something was chosen among several are those of a winner, and flatter it.
    """
    taken = rounds({"first": first, "second": second}, device, seconds)
    return Spread.of(taken["first"]), Spread.of(taken["second"])


def rounds(
    runs: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, least: int = LEAST
) -> dict[str, list[float]]:
    """Return the seconds of every run, all of them in turn in each round.

    A first round warms up and does not count. In each round a short run goes once untimed before it is timed, so that
    it finds the caches as it leaves them itself, not as the run before it did. Rounds go on until each run had
    `seconds`, at least 5 and at most 40.

    Args:
        runs: the functions to time, by name.
        device: waited for before a clock is read.
        seconds: how long to measure each run, roughly.
        least: the fewest rounds.
    """
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    spent = 0.0
    for number in range(max(MOST, least)):
        if number >= least and spent > seconds * len(runs):
            break
        for name, run in runs.items():
            if not taken[name] or taken[name][-1] < _SHORT:
                run()
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            taken[name].append(time.perf_counter() - began)
            spent += taken[name][-1]
    return taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
