"""Text for people: the table of levels, a ticket in a few lines, the table of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lottery.results.card import delivered_text
from lottery.results.columns import Report, Table, report
from lottery.results.levels import Level, Replicate, Search
from lottery.results.reporting import percent, units, within
from lottery.results.statistics import against_dense, interval
from pruning.disk.plain import plain
from pruning.mask import Mask


@dataclass(frozen=True)
class LevelTable:
    """The table of levels. It may be printed row by row, as levels end: its widths are known beforehand.

    Fractions are shown in percent, differences in percentage points.

    Attributes:
        metric: the name of the metric.
        is_fraction: whether it is a fraction of examples.
        examples: the size of the test part, where that is known.
        prunable: how many weights there are to prune.
    """

    metric: str
    is_fraction: bool
    examples: int | None
    prunable: int

    def head(self) -> Table:
        """Return the header alone."""
        scale, unit = units(self.is_fraction)
        values = [f"{100:.2f}", f"[{90:.2f}, {100:.2f}]"] if scale == 100 else ["-1.23e+04", "[-123.45, -123.45]"]
        widest = ("100", percent(1), f"{self.prunable:,}", values[0], *values, f"+0.00{unit}")
        test = f"test {self.metric}{' %' if self.is_fraction else ''}"
        header = ("level", "density", "kept", "validation", test, "95 % interval", "vs dense")
        return Table(header, unseen=(widest,), keys=len(header))

    def row(self, level: Level, dense: Level) -> Report:
        """Return the row of one level, and what is to be said of it, without the header."""
        alone = replace(self.head(), headed=False, rows=(self._cells(level, dense),))
        return report(alone, *_diverged(level))

    def winning(self, level: Level, dense: Level) -> Table:
        """Return the row of the winning ticket's level, marked and without the header."""
        return replace(self.head(), headed=False, rows=(self._cells(level, dense),), marked=frozenset({0}))

    def whole(self, levels: Sequence[Level], winner: int | None) -> Report:
        """Return the table of all levels, the winning ticket's level marked."""
        rows = tuple(self._cells(level, levels[0]) for level in levels)
        marked = frozenset(at for at, level in enumerate(levels) if level.level == winner)
        notes = [f"level {level.level}:{note}" for level in levels for note in _diverged(level)]
        return report(replace(self.head(), rows=rows, marked=marked), *notes)

    def _cells(self, level: Level, dense: Level) -> tuple[str, ...]:
        difference = against_dense(level, dense)
        scale, unit = units(self.is_fraction)
        shown = "–" if difference is None or not level.level else f"{difference * scale:+.2f}{unit}"
        bounds = within(interval(level, self.is_fraction, self.examples), scale)
        values = _value(level.validation, scale), _value(level.test, scale)
        return (str(level.level), percent(level.density), _kept(level), *values, bounds, shown)


def levels_of(search: Search) -> LevelTable:
    """Return the table of a search's levels."""
    return LevelTable(search.metric, search.is_fraction, search.test_examples, search.levels[0].prunable)


def _diverged(level: Level) -> list[str]:
    failed = [f"seed {r.seed}: {plain(r.diverged)}" for r in level.replicates if r.diverged]
    return [f"       diverged ({'; '.join(failed)})"] if failed else []


def _interval_note(replicates: int, is_fraction: bool, examples: int | None) -> str:
    """Say what the table's interval is."""
    if replicates > 1:
        return f"Interval: Student's t over {replicates} replicates."
    if is_fraction and examples:
        return (
            f"Interval: Wilson's, from {examples:,} test examples; one replicate says nothing of the spread of seeds."
        )
    return "No interval: one replicate."


def conclusion(search: Search) -> str:
    """Return the lines after the table: tolerance, the winning ticket or why there is none, where it lies."""
    scale, unit = units(search.is_fraction)
    tolerance = f"tolerance {search.tolerance.value * scale:.2f}{unit}: {search.tolerance.rule}"
    lines = [_interval_note(len(search.levels[0].replicates), search.is_fraction, search.test_examples)]
    replicate = search.winning_replicate
    if replicate is None:
        lines.append(f"No winning ticket: {plain(search.reason)} ({tolerance}).")
    else:
        level, dense = search.levels[replicate.level], search.levels[0]
        own = "" if replicate.kept == level.kept else f" in the mean, {100 * replicate.density:.2f} % in this ticket"
        lines += [
            f"Winning ticket: level {level.level}, {100 * level.density:.2f} % of the weights{own}. "
            f"Validation {_value(level.validation, scale)} against {_value(dense.validation, scale)} dense "
            f"({tolerance}).",
            f"Test {plain(search.metric)}: {_value(level.test, scale)} against {_value(dense.test, scale)} dense "
            f"(reported only; chosen on validation data).",
            f"Ticket: {plain(replicate.path)}",
        ]
    if search.stopped is not None:
        lines.append(f"The search stopped early: {plain(search.stopped)}.")
    return "\n".join(lines)


def transfer_text(search: Search, before: Mapping[str, Any]) -> str:
    """Return what training a ticket again gave, beside what its record says that it reached where it was found."""
    level, (scale, _) = search.levels[0], units(search.is_fraction)
    then = before["metric"]
    test, validation = _value(level.test, scale), _value(level.validation, scale)
    return "\n".join(
        [
            _interval_note(len(level.replicates), search.is_fraction, search.test_examples),
            f"Trained with {_trainer(search.config)} on {plain(search.config.get('data'))}: "
            f"{100 * level.density:.2f} % of the weights, test {plain(search.metric)} {test}, validation {validation}.",
            f"Found with {_trainer(before.get('config', before))} on {plain(before.get('data', 'data'))}: "
            f"test {plain(then['name'])} {_value(before['test'], 100 if then.get('is_fraction') else 1)}.",
            *(f"Ticket: {plain(replicate.path)}" for replicate in level.replicates),
            f"Run: {plain(search.run)} ({search.seconds:.1f} s of training on {plain(search.device)})",
        ]
    )


def _trainer(config: Mapping[str, Any]) -> str:
    strategy = config.get("strategy")
    return plain(f"{config.get('trainer')}{f' ({strategy})' if strategy else ''}")


def layer_table(replicate: Replicate) -> Table:
    """Return the density of every tensor of one replicate."""
    rows = tuple((name, percent(density)) for name, density in replicate.layers.items())
    return Table(("layer", "density"), rows, left=frozenset({0}))


def ticket_text(
    info: Mapping[str, Any], mask: Mask, search: Search | None, path: Path | None, *, trained: bool, hashed: bool
) -> str:
    """Return a ticket in a few lines: density, metric against dense, levels searched, where it is stored.

    Args:
        info: its record.
        mask: its mask.
        search: that found it, where that is at hand.
        path: where it is stored, or None.
        trained: whether it holds trained weights.
        hashed: whether its files were checked against hashes.
    """
    metric, fraction = plain(info["metric"]["name"]), info["metric"].get("is_fraction", False)
    scale = 100 if fraction else 1
    dense = info.get("dense") or {}
    lines = [
        f"Ticket: {100 * mask.density:.2f} % of {mask.total:,} weights ({mask.kept:,} kept), "
        f"level {info['level']}, seed {info['seed']}",
        f"  validation {metric}: {_value(info['validation'], scale)}, dense {_value(dense.get('validation'), scale)}",
        f"  test {metric}: {_value(info['test'], scale)}, dense {_value(dense.get('test'), scale)}",
    ]
    if trained:
        lines.append(f"  trained weights: {delivered_text(info)}")
    if search is not None:
        level = search.levels[info["level"]]
        bounds = interval(level, search.is_fraction, search.test_examples)
        if bounds:
            part = "validation" if level.test is None else "test"
            lines.append(
                f"  level's mean {part}: {_value(level.validation if level.test is None else level.test, scale)} "
                f"{within(bounds, scale)} (95 %); "
                + _interval_note(len(search.levels[0].replicates), search.is_fraction, search.test_examples)
            )
        lines.append(f"  searched: {len(search.levels)} levels, {len(search.levels[0].replicates)} replicate(s)")
    lines.append(f"  stored in: {plain(path) if path else 'memory only'}")
    if not hashed:
        lines.append("  not checked: stored by an earlier version, without hashes; saving it again gives it some")
    return "\n".join(lines)


def _kept(level: Level) -> str:
    fewest, most = level.kept_range
    return f"{fewest:,}" if fewest == most else f"{fewest:,}–{most:,}"


def _value(value: float | None, scale: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value * scale:.2f}" if scale == 100 else f"{value:.4g}"
