"""Text for people: the table of levels, a ticket in a few lines, the table of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery.results.card import delivered_text
from lottery.results.levels import Level, Replicate, Search
from lottery.results.reporting import percent, units, within
from lottery.results.statistics import against_dense, interval
from pruning.disk.plain import plain
from pruning.mask import Mask

HEADER = (
    f"{'level':>5}  {'density':>8}  {'kept / total':>23}  {'validation':>10}  {'test':>7}  {'95 % interval':>17}"
    f"  {'vs dense':>9}"
)


def level_row(level: Level, dense: Level, is_fraction: bool, examples: int | None) -> str:
    """Return one line of the table of levels.

    Fractions are shown in percent, differences in percentage points.
    """
    bounds = interval(level, is_fraction, examples)
    difference = against_dense(level, dense)
    scale, unit = units(is_fraction)
    shown_difference = "–" if difference is None else f"{difference * scale:+.2f}{unit}"
    row = (
        f"{level.level:>5}  {percent(level.density):>8}  {_kept(level):>11} /{level.prunable:>10,}  "
        f"{_value(level.validation, scale):>10}  {_value(level.test, scale):>7}  {within(bounds, scale):>17}  "
        f"{shown_difference if level.level else '–':>9}"
    )
    failed = [f"seed {r.seed}: {plain(r.diverged)}" for r in level.replicates if r.diverged]
    return row + (f"  diverged ({'; '.join(failed)})" if failed else "")


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


def layer_table(replicate: Replicate) -> str:
    """Return the density of every tensor of one replicate."""
    layers = [(plain(name), density) for name, density in replicate.layers.items()]
    width = max(len(name) for name, _ in layers)
    return "\n".join(f"  {name:<{width}}  {100 * density:6.2f}%" for name, density in layers)


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
            lines.append(
                f"  level's mean test: {_value(level.test, scale)} "
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
