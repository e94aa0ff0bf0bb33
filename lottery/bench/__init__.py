"""Benchmarks: honest timings, each against a stated baseline in the same process. One file each, found by itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lottery.results.columns import Table
from lottery.results.reporting import table
from lottery.state.counts import check_count
from lottery.state.machine.bars import with_bar
from pruning.registry import Registry
from pruning.sparse.choosing.spread import Spread, told_apart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Report:
    """The measurements of a benchmark.

    Attributes:
        rows: one for each way of doing it: `what`, `seconds_per_<unit>` (the median), `fastest`, `slowest`, `speedup`
            (ratio of medians) against the baseline that the note names, `spread` of the timings and `baseline_spread`,
            `told` (whether the two can be told apart), and facts (shapes, precision, device).
        unit: what one run of each is.
        note: shapes, precision, hardware and baseline in a line or two.
        draw: makes a figure of the rows, where the benchmark has one.
    """

    rows: list[dict[str, Any]]
    unit: str
    note: str
    draw: Callable[[Sequence[dict[str, Any]]], Figure] | None = None


Run = Callable[[str, int, str], Report]


def timings(report: Report) -> Table:
    """Return the measurements as a table.

    >>> row = {"what": "ours", "seconds_per_step": 0.5, "fastest": 0.4, "slowest": 0.6, "speedup": 2.0}
    >>> print(timings(Report([row], "step", "")))
          s / step       min       max  speed-up
    ours  0.500000  0.400000  0.600000      2.0x
    """
    rows: list[list[str]] = []
    for row in report.rows:
        seconds = [row[f"seconds_per_{report.unit}"], row["fastest"], row["slowest"]]
        gain = "cannot tell" if row.get("told") == "cannot tell" else f"{row['speedup']:.1f}x"
        rows.append([row["what"], *(f"{each:.6f}" for each in seconds), gain])
    return table(["", f"s / {report.unit}", "min", "max", "speed-up"], rows, left=[0])


BENCHMARKS: Registry[Run] = Registry("benchmark", "lottery.bench", listed="benchmarks")


def benchmark(name: str, *, source: str) -> Callable[[Run], Run]:
    """Register `run(data, repeats, device)`; its docstring's first line is its summary."""
    return BENCHMARKS.registering(name, source)


def timed_rounds(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every run, all of them in turn in each round; a first round warms up and does not count."""
    check_count("repeats", repeats)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in with_bar(range(repeats + 1), "rounds"):
        for name, run in runs.items():
            taken = run()
            if number:
                seconds[name].append(taken)
    return seconds


def row(what: str, unit: str, seconds: list[float], baseline: list[float], **facts: Any) -> dict[str, Any]:
    """Return one row of a report; the speed-up is the ratio of the medians."""
    return {"what": what, f"seconds_per_{unit}": statistics.median(seconds), **compared(seconds, baseline), **facts}


def compared(seconds: list[float], baseline: list[float]) -> dict[str, Any]:
    """Return what a row says of timings beside those of their baseline, which were taken in turn with them."""
    own, other = Spread.of(seconds), Spread.of(baseline)
    return {
        "fastest": own.least,
        "slowest": own.most,
        "speedup": other.median / own.median,
        "spread": own.as_json(),
        "baseline_spread": other.as_json(),
        "told": "baseline" if seconds is baseline else told_apart(other, own),
    }
