"""Several searches side by side: what tells them apart, level by level, and their differences at matched density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lottery.results.columns import Report, report
from lottery.results.levels import Level, Search
from lottery.results.reporting import percent, table, units, within
from lottery.results.statistics import (
    Estimate,
    by_seed,
    holm,
    interval,
    paired_difference,
    paired_t_p,
    pairs,
    sign_flip_p,
)
from lottery.settings.config import SearchConfig
from lottery.settings.fields import field_names
from pruning.disk.plain import plain
from pruning.errors import BadValue

# In this order they name a search best.
_TELLING = ("criterion", "trainer", "strategy", "std", "scope", "rewind", "optimizer", "sigma", "seed")
_IN_EVERY_TABLE = ("levels", "sparsity", "densities", "replicates")
# Levels whose numbers of weights differ by more than this fraction are not compared.
MATCHED = 0.02


@dataclass(frozen=True)
class Difference:
    """One search against the reference at one density.

    Attributes:
        label: the label of the search.
        level: the level of the reference.
        other_level: of the search, the level nearest in weights; None where it has none within 2 %.
        density: the density of the reference's level.
        other_density: the density of the search's nearest level.
        estimate: search minus reference, paired by seed, with Student's t interval; None where nothing is paired.
        p: of the paired t test; None with fewer than two pairs or without any spread.
        holm: the same, adjusted for all the differences that were asked for together.
        sign_flip: the exact p-value that assumes no distribution.
        reason: why there is no estimate, or None.
    """

    label: str
    level: int
    other_level: int | None
    density: float
    other_density: float
    estimate: Estimate | None
    p: float | None
    holm: float | None
    sign_flip: float | None
    reason: str | None


def labels(searches: Sequence[Search]) -> list[str]:
    """Return a name for each search: the settings in which they differ.

    Raises:
        BadValue: searches of different models, data or metrics, or that differ in nothing.
    """
    for key in ("model", "data"):
        found = sorted({str(search.config.get(key)) for search in searches})
        if len(found) > 1:
            raise BadValue(f"these runs cannot be compared: their {key} differs ({', '.join(found)})")
    metrics = sorted({search.metric for search in searches})
    if len(metrics) > 1:
        raise BadValue(f"these runs cannot be compared: their metric differs ({', '.join(metrics)})")
    return telling_names([search.config for search in searches], _TELLING)


def telling_names(configs: Sequence[Mapping[str, Any]], telling: Sequence[str]) -> list[str]:
    """Return a name for each configuration: the values of all settings in which they differ.

    Between two trainers their own settings are not compared, also where both have one of that name; and how far and how
    often was searched is in every table beside the name. These come in only where the names are not different without.

    Args:
        configs: resolved configurations.
        telling: the settings that name best, in order.

    Raises:
        BadValue: configurations that differ in nothing.

    >>> telling_names([{"trainer": "optax", "lr": 0.1}, {"trainer": "function", "steps": 9}], ["trainer"])
    ['optax', 'function']
    >>> telling_names([{"criterion": "snr", "lr": 0.1}, {"criterion": "random", "lr": 0.2}], ["criterion"])
    ['snr, lr 0.1', 'random, lr 0.2']
    """

    def differs(key: str) -> bool:
        return len({str(config.get(key)) for config in configs}) > 1

    rest = sorted(filter(differs, set().union(*configs) - set(telling)))
    alike = field_names(SearchConfig) if differs("trainer") else set(rest)
    common = [key for key in rest if key in alike - set(_IN_EVERY_TABLE)]
    keys = [*filter(differs, telling), *common]
    for key in [None, *(key for key in rest if key not in common)]:
        keys += [key] if key is not None else []
        names = [", ".join(_shown(config, k, telling) for k in keys if _says(config, k, telling)) for config in configs]
        if len(set(names)) == len(names):
            return names
    raise BadValue("some of these runs differ in no setting: there is nothing to compare")


def _says(config: Mapping[str, Any], key: str, telling: Sequence[str]) -> bool:
    return key not in telling or config.get(key) is not None


def _shown(config: Mapping[str, Any], key: str, telling: Sequence[str]) -> str:
    """Return a setting's value, under its name where the value alone says too little."""
    return plain(config[key] if key in telling else f"{key} {config.get(key)}")


def compare(searches: Sequence[Search], reference: int = 0) -> list[Difference]:
    """Return every search minus the reference, level by level of the reference, at the same number of weights.

    Replicates are paired by seed. Where the nearest level of a search keeps over 2 % more or fewer weights than the
    reference's, or no seed is in both, the row has a reason instead of an estimate.

    Args:
        searches: of one model, data set and metric.
        reference: which of them the others are compared with.

    Raises:
        BadValue: fewer than two searches, a reference that is not among them, or searches that cannot be compared.
    """
    if not 0 <= reference < len(searches) or len(searches) < 2:
        raise BadValue(f"a comparison takes two or more runs, one of them the reference; got {len(searches)}")
    names, base = labels(searches), searches[reference]
    rows = [
        _difference(name, level, search)
        for level in base.levels
        for name, search in zip(names, searches, strict=True)
        if search is not base
    ]
    tested = [number for number, row in enumerate(rows) if row.p is not None]
    adjusted = holm([p for row in rows if (p := row.p) is not None])
    by_row = dict(zip(tested, adjusted.tolist(), strict=True))
    return [replace(row, holm=by_row.get(number)) for number, row in enumerate(rows)]


def _difference(label: str, level: Level, search: Search) -> Difference:
    near = min(search.levels, key=lambda other: abs(other.kept - level.kept))
    row = Difference(label, level.level, None, level.density, near.density, None, None, None, None, None)
    if abs(near.kept - level.kept) > MATCHED * level.kept:
        return replace(row, reason=f"its nearest level keeps {percent(near.density)}")
    there, here = pairs(by_seed(near), by_seed(level))
    if not here:
        return replace(row, other_level=near.level, reason="no seed in common")
    return replace(
        row,
        other_level=near.level,
        estimate=paired_difference(there, here),
        p=paired_t_p(there, here),
        sign_flip=sign_flip_p(there, here),
    )


def comparison_text(searches: Sequence[Search]) -> Report:
    """Return both tables: every level of every search, and their differences to the first."""
    return report(comparison_table(searches), "", differences(searches))


def comparison_table(searches: Sequence[Search]) -> Report:
    """Return the mean test metric and its 95 % interval for every level of every search."""
    names = labels(searches)
    width, rows = max(24, *(len(name) + 2 for name in names)), []
    for number in range(max(len(search.levels) for search in searches)):
        cells, density = [], ""
        for search in searches:
            level = search.levels[number] if number < len(search.levels) else None
            if level is None or not level.alive:
                cells.append("–")
                continue
            scale, _ = units(search.is_fraction)
            value = level.test if level.test is not None else level.validation
            bounds = interval(level, search.is_fraction, search.test_examples)
            shown = f" {within(bounds, scale)}" if bounds else ""
            density = density or percent(level.density)
            elsewhere = percent(level.density)
            cells.append(f"{value * scale:.2f}{shown}" + (f" at {elsewhere}" if elsewhere != density else ""))
        rows.append([str(number), density, *cells])
    counts = ", ".join(f"{len(s.levels[0].replicates)} ({name})" for s, name in zip(searches, names, strict=True))
    part = "test" if searches[0].levels[0].test is not None else "validation"
    least = (5, 8, width, *[width - 2] * (len(names) - 1))
    shown = table(["level", "density", *names], rows, least=least, keys=2)
    return shown + f"Mean {part} {plain(searches[0].metric)} and 95 % interval; replicates: {counts}."


def difference_table(searches: Sequence[Search]) -> str:
    """Return the differences to the first search as text: one line for each level and other search."""
    return str(differences(searches))


def differences(searches: Sequence[Search]) -> Report:
    """Return the differences to the first search: one line for each level and other search."""
    rows = compare(searches)
    scale, unit = units(searches[0].is_fraction)
    lines: list[list[str]] = []
    for row in rows:
        start = [str(row.level), percent(row.density), row.label]
        if row.estimate is None:
            lines.append([*start, "–", "", "", "", f"({row.reason})"])
            continue
        near = f"at {percent(row.other_density)}" if f"{row.other_density:.4f}" != f"{row.density:.4f}" else ""
        shown = difference_text(row.estimate, scale, unit)
        lines.append([*start, shown, str(row.estimate.n), _p(row.p), _p(row.holm), near])
    header = ["level", "density", "search", f"against {labels(searches)[0]}", "n", "p", "p (Holm)", ""]
    return report(
        table(header, lines, least=(5, 8, 6, 30, 3, 7, 8, 0), left=[2, 7], keys=3),
        "Differences are paired by seed at the same density (within 2 %), with Student's t interval; p of the paired "
        "t test, adjusted by Holm over all lines.",
    )


def difference_text(estimate: Estimate, scale: float, unit: str) -> str:
    """Return a difference with its sign, its unit and its interval.

    >>> difference_text(Estimate(0.01, 0.005, 0.015, 5, "Student's t"), 100, " pp")
    '+1.00 pp [+0.50, +1.50]'
    """
    shown = f"{estimate.value * scale:+.2f}{unit}"
    if estimate.low is None or estimate.high is None:
        return shown
    return f"{shown} [{estimate.low * scale:+.2f}, {estimate.high * scale:+.2f}]"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
