"""How much earlier each level stops than the dense network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.figure import draw_lines
from lottery.results.intervals import Bounds, t_quantile
from lottery.results.reporting import Line, cells, line, line_with, percent, table
from lottery.studies.analyses import Findings, Study, analysis
from pruning.errors import BadValue

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lottery.results.levels import Replicate


@analysis("early-stop-speedup", source="Frankle & Carbin 2019, figure 1 (arXiv 1803.03635)")
def early_stop_speedup(study: Study) -> Findings:
    """Early-stop step of each level over the dense one, by mean of ratios and by ratio of means.

    The early-stop step is that of the smallest validation loss, counted from step 0 of the schedule (after a rewind to
    step k training begins at k). The two ratios answer different questions, and differ where dense steps vary between
    seeds; both are paired by seed. A replicate whose loss is smallest at its last evaluation was cut off before it
    stopped: its step is a lower bound, and `at_end` counts those.

    Returns:
        `density`, `mean_of_ratios`, `ratio_of_means` [levels], `…_interval` [levels, 2] (Student's t; of the ratio of
        means by its linearization, Cochran 1977, section 6.4), `steps` [levels, replicates], `at_end` and `n` [levels].

    Raises:
        BadValue: no dense replicate has an early-stop step above 0.
    """
    levels = study.levels
    dense = {r.seed: r.early_stop.step for r in levels[0].alive if r.early_stop and r.early_stop.step > 0}
    if not dense:
        raise BadValue(f"{study.run.path}: no dense replicate has a validation loss that fell after step 0")
    pairs = [
        np.array([(r.early_stop.step, dense[r.seed]) for r in level.alive if r.early_stop and r.seed in dense])
        .reshape(-1, 2)
        .astype(np.float64)
        for level in levels
    ]
    seeds = list(dense)
    steps = np.full((len(levels), len(seeds)), np.nan)
    for row, level in enumerate(levels):
        for replicate in level.alive:
            if replicate.early_stop and replicate.seed in dense:
                steps[row, seeds.index(replicate.seed)] = replicate.early_stop.step
    of_ratios = line([pair[:, 0] / pair[:, 1] for pair in pairs], least=0)
    of_means = line_with([_ratio(pair) for pair in pairs], [_ratio_interval(pair) for pair in pairs])
    counts = np.array([len(pair) for pair in pairs])
    ends = np.array([sum(_cut_off(r) for r in level.alive if r.seed in dense) for level in levels])
    density = np.array([level.density for level in levels])
    text = _text(study, pairs, of_ratios, of_means, ends)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(1.0, color="#555555", lw=1, ls="--", label="as the dense network")
        for column, seed in enumerate(seeds):
            ratios = steps[:, column] / dense[seed]
            axes.plot(100 * density, ratios, ".", color="#999999", ms=3, label=None if column else "one replicate")
        draw_lines(axes, 100 * density, {"mean of ratios": of_ratios, "ratio of means": of_means})
        axes.set_ylabel("early-stop step, over the dense one")
        least, most = counts.min(), counts.max()
        shown = f"{most}" if least == most else f"{least} to {most}"
        axes.set_title(f"95 % t intervals, n = {shown} pairs of one seed", fontsize=9)

    arrays = {
        "density": density,
        "mean_of_ratios": of_ratios.mean,
        "mean_of_ratios_interval": of_ratios.interval,
        "ratio_of_means": of_means.mean,
        "ratio_of_means_interval": of_means.interval,
        "steps": steps,
        "at_end": ends,
        "n": counts,
    }
    return Findings(arrays, text, draw, {"seeds": seeds, "resolution": _resolution(levels[0].alive[0])})


def _text(study: Study, pairs: list[NDArray[np.float64]], ratios: Line, means: Line, ends: NDArray[np.int_]) -> Report:
    columns = zip(study.levels, pairs, cells(ratios), cells(means), ends, strict=True)
    rows = [
        [
            str(level.level),
            percent(level.density),
            f"{pair[:, 0].mean():.0f}" if len(pair) else "–",
            by_ratio,
            by_mean,
            str(end),
            str(len(pair)),
        ]
        for level, pair, by_ratio, by_mean, end in columns
    ]
    every = _resolution(study.levels[0].alive[0])
    return report(
        table(["level", "density", "mean step", "mean of ratios", "ratio of means", "at end", "n"], rows, keys=2),
        f"Early-stop step over the dense one of the same seed: 1 is as late, 0.5 twice as early. 95 % t intervals, "
        f"a row's n pairs, of n = {len(pairs[0])} dense replicates; known to ±{every} steps (the spacing of "
        "evaluations).",
        "At end: replicates whose validation loss was still smallest at their last evaluation; their step is a "
        "lower bound.",
    )


def _ratio(pair: NDArray[np.float64]) -> list[float]:
    return [float(pair[:, 0].mean() / pair[:, 1].mean())] if len(pair) else []


def _ratio_interval(pair: NDArray[np.float64]) -> Bounds | None:
    """Return Student's t interval of a ratio of two means over the same replicates, to first order in their errors."""
    if len(pair) < 2:
        return None
    ratio = float(pair[:, 0].mean() / pair[:, 1].mean())
    residuals = (pair[:, 0] - ratio * pair[:, 1]) / pair[:, 1].mean()
    half = float(t_quantile(len(pair) - 1) * residuals.std(ddof=1) / np.sqrt(len(pair)))
    return max(0.0, ratio - half), ratio + half


def _cut_off(replicate: Replicate) -> bool:
    return replicate.early_stop is not None and replicate.early_stop.step == replicate.history[-1].step


def _resolution(replicate: Replicate) -> int:
    """Return the widest spacing of a training's evaluations, in steps."""
    at = [point.step for point in replicate.history]
    return max(np.diff(at).tolist(), default=0)
