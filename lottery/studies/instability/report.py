"""The result of an instability analysis: as plain data, as JSON, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.networks.objectives.metric import Measure
from lottery.results.columns import Report, report
from lottery.results.intervals import Bounds, t_interval
from lottery.results.reporting import percent, table, units, within
from lottery.studies.measures.connectivity import STABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LevelStability:
    """Barriers between the copies of one level's tickets.

    Attributes:
        level: its number.
        density: the density of its masks.
        seeds: the seeds of the replicates.
        error: error barriers by part of the data [replicates, pairs of copies]; NaN where a copy diverged.
        loss: loss barriers, in the same shape.
    """

    level: int
    density: float
    seeds: tuple[int, ...]
    error: Mapping[str, NDArray[np.float64]]
    loss: Mapping[str, NDArray[np.float64]]

    def replicates(self, part: str) -> NDArray[np.float64]:
        """Return each replicate's mean error barrier [replicates], without those that have no pair of copies."""
        rows = self.error[part]
        return np.array([np.nanmean(row) for row in rows if not np.isnan(row).all()])

    def mean(self, part: str) -> float:
        """Return the mean over replicates; NaN where every copy diverged."""
        values = self.replicates(part)
        return float(values.mean()) if len(values) else float("nan")

    def interval(self, part: str) -> Bounds | None:
        """Return Student's 95 % t interval over replicates; None for fewer than two."""
        return t_interval(self.replicates(part), least=0)


@dataclass(frozen=True)
class Stability:
    """The result of an instability analysis.

    Attributes:
        run: the run directory.
        levels: those that were asked for.
        measure: how the metric is read.
        copies: the number of copies of every ticket.
        points: on every line between two copies.
    """

    run: Path
    levels: tuple[LevelStability, ...]
    measure: Measure
    copies: int
    points: int

    def stable(self, level: LevelStability, part: str) -> bool | None:
        """Say whether the mean error barrier is less than 2 %; None for a metric that is no fraction, or NaN."""
        mean = level.mean(part)
        return None if not self.measure.is_fraction or np.isnan(mean) else bool(mean < STABLE)


def stability_json(found: Stability) -> dict[str, Any]:
    """Return arrays and facts as plain JSON."""
    return {
        "run": str(found.run),
        "metric": found.measure.name,
        "is_fraction": found.measure.is_fraction,
        "copies": found.copies,
        "points": found.points,
        "levels": [
            {
                "level": level.level,
                "density": level.density,
                "seeds": list(level.seeds),
                "parts": {part: _part_json(found, level, part) for part in level.error},
            }
            for level in found.levels
        ],
    }


def stability_table(found: Stability) -> str:
    """Return the report of an instability analysis as text."""
    return str(stability_report(found))


def stability_report(found: Stability) -> Report:
    """Return one line for each level and part; barriers of accuracies in percentage points."""
    scale, unit = (100, "pp") if found.measure.is_fraction else (1, found.measure.name)
    header = ["level", "density", "part", f"error barrier ({unit})", "95 % interval", "loss barrier", "stable", "n"]
    rows = []
    for level in found.levels:
        for part in level.error:
            losses = level.loss[part][~np.isnan(level.loss[part])]
            rows.append(
                [
                    str(level.level),
                    percent(level.density),
                    part,
                    f"{scale * level.mean(part):.3f}",
                    within(level.interval(part), scale),
                    f"{losses.mean():.4g}" if losses.size else "–",
                    {True: "yes", False: "no", None: "–"}[found.stable(level, part)],
                    str(len(level.replicates(part))),
                ]
            )
    diverged = sum(int(np.isnan(next(iter(level.error.values()))).sum()) for level in found.levels)
    return report(
        table(header, rows, least=(5, 8, 10, 20, 17, 12, 6, 3), keys=3),
        f"{found.copies} copies of each ticket, the same but for their noise (data order, perturbations); "
        f"{found.points} points on each line between two.\n"
        "Barrier: largest error on the line minus the mean of its ends; stable: less than "
        f"{100 * STABLE:g} pp (Frankle et al. 2020). Interval: Student's t over n replicates.",
        *([f"{diverged} pairs are left out: a copy diverged."] if diverged else []),
    )


def stability_figure(found: Stability) -> Figure:
    """Return the error barrier against density with its interval, and the line below which a level is stable."""
    from matplotlib.figure import Figure

    from lottery.results.figure import shade, style_density

    scale, unit = units(found.measure.is_fraction)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    density = np.array([100 * level.density for level in found.levels])
    for part in found.levels[0].error:
        count = min(len(level.replicates(part)) for level in found.levels)
        mean = scale * np.array([level.mean(part) for level in found.levels])
        (line,) = axes.plot(density, mean, "o-", ms=4, lw=1.5, label=f"{part} (n = {count})")
        bounds = [level.interval(part) for level in found.levels]
        shade(axes, density, bounds, scale, color=line.get_color(), alpha=0.18)
    if found.measure.is_fraction:
        axes.axhline(100 * STABLE, color="#555555", lw=1, ls="--", label="stable below")
    axes.set_ylabel(f"error barrier between copies{f' ({unit.strip()})' if unit else ''}, mean and 95 % interval")
    style_density(axes, density.tolist())
    return figure


def _part_json(found: Stability, level: LevelStability, part: str) -> dict[str, Any]:
    bounds = level.interval(part)
    return {
        "barriers": level.error[part].tolist(),
        "loss_barriers": level.loss[part].tolist(),
        "barrier": level.mean(part),
        "interval": list(bounds) if bounds else None,
        "n": len(level.replicates(part)),
        "stable": found.stable(level, part),
    }
