"""Curvature and flatness of the optima of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import report
from lottery.results.intervals import t_interval
from lottery.results.reporting import percent, table
from lottery.state.counts import check_count
from lottery.state.machine.bars import with_bar
from lottery.studies.analyses import Findings, Study, analysis
from lottery.studies.measures.curvature import EXAMPLES, flatness, surface, top_eigenvalues, trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGMAS = (0.01, 0.03, 0.1)


@analysis("sharpness", source="Paul et al. 2023 (arXiv 2210.03044); Lange & Sprekeler 2023 (arXiv 2306.00045)")
def sharpness(
    study: Study,
    examples: int = EXAMPLES,
    iterations: int = 20,
    probes: int = 5,
    directions: int = 5,
    sigmas: tuple[float, ...] = SIGMAS,
) -> Findings:
    """Top Hessian eigenvalue, Hessian trace and random-direction flatness of the training loss at each level.

    Over what training moved: survivors of the mask and other trainable parameters, and of these what `train_only` names
    (`lottery.studies.measures.curvature`); in evaluation mode. Every replicate has probes and directions of its own.

    Args:
        study: the search.
        examples: the most training examples.
        iterations: the number of iterations of Lanczos.
        probes: the number of probes of Hutchinson's trace estimate.
        directions: random ones, for the flatness.
        sigmas: standard deviations of the step of every weight.

    Returns:
        `density` [levels]; `eigenvalue`, `eigenvalue_residual`, `trace`, `trace_error` (standard error over probes)
        and `dimension` [levels, replicates]; `loss`, `metric` [levels, replicates] at the optimum, `loss_rise` and
        `metric_change` [levels, replicates, sigmas], means over directions; `sigmas`.
    """
    check_count("examples", examples)
    view, seeds = study.view, study.seeds
    levels = [level for level in study.search.levels if level.alive]
    train_only = tuple(study.search.config.get("train_only") or ())
    numbers = np.empty((len(levels), len(seeds), 7))
    around = np.empty((2, len(levels), len(seeds), len(sigmas)))
    for row, level in enumerate(with_bar(levels, "levels")):
        for column, seed in enumerate(seeds):
            params, mask = study.trained(seed, level.level), study.mask(seed, level.level)
            where = surface(view, params, mask, examples=examples, train_only=train_only)
            top = top_eigenvalues(where, 1, iterations, seed)
            total = trace(where, probes, seed)
            flat = flatness(where, sigmas, directions, seed)
            loss, metric = flat.centre
            numbers[row, column] = (
                top.values[0], top.residuals[0], total.value, total.error, where.dimension, loss, metric
            )  # fmt: skip
            around[0, row, column] = flat.loss.mean(1) - loss
            around[1, row, column] = flat.metric.mean(1) - metric
    density = np.array([level.density for level in levels])
    names = ("eigenvalue", "eigenvalue_residual", "trace", "trace_error", "dimension", "loss", "metric")
    columns = {name: numbers[..., index] for index, name in enumerate(names)}
    rows = []
    for row, level in enumerate(levels):
        # The replicates' probes are independent, and so are the errors of their estimates.
        own = np.sqrt((columns["trace_error"][row] ** 2).sum()) / len(seeds)
        rises = [_cell(values, "+.3g") for values in around[0, row].T]
        rows.append(
            [
                str(level.level),
                percent(level.density),
                _cell(columns["eigenvalue"][row], ".4g"),
                _cell(columns["trace"][row], ".4g"),
                f"{own:.2g}",
                *rises,
            ]
        )
    header = ["level", "density", "top eigenvalue", "trace", "± by probes"]
    header += [f"loss at σ {sigma:g}" for sigma in sigmas]
    moved = "survivors and the other trainable parameters"
    if train_only:
        moved += f" that train_only names ({', '.join(train_only)})"
    lines = [
        table(header, rows, keys=2),
        f"Training loss on at most {examples:,} examples, in evaluation mode, over {moved}.",
        f"Mean and 95 % t interval, n = {len(seeds)} replicates; Lanczos, {iterations} iterations; trace: Hutchinson, "
        f"{probes} probes a replicate (±: the standard error of the mean that is due to probes alone, part of the "
        "interval).",
        f"Loss at σ: its rise over the optimum's, mean of {directions} random directions a replicate.",
    ]

    def draw(figure: Figure) -> None:
        from lottery.results.figure import shade, style_density

        panels = figure.subplots(1, 3)
        for axes, name in zip(panels[:2], ("eigenvalue", "trace"), strict=True):
            axes.plot(100 * density, columns[name].mean(1), "o-", ms=4, lw=1.5, label=f"mean (n = {len(seeds)})")
            bounds = [t_interval(values) for values in columns[name]]
            shade(axes, 100 * density, bounds, alpha=0.18, label="95 % t interval")
            axes.set_title(f"Hessian, {'top eigenvalue' if name == 'eigenvalue' else name}", fontsize=9)
        for index, sigma in enumerate(sigmas):
            panels[2].plot(100 * density, around[0, ..., index].mean(1), "o-", ms=4, lw=1.5, label=f"σ = {sigma:g}")
        panels[2].set_yscale("symlog", linthresh=1e-3)
        panels[2].set_title("rise of the loss, random directions", fontsize=9)
        for axes in panels:
            style_density(axes, (100 * density).tolist())

    arrays = {
        "density": density,
        **columns,
        "loss_rise": around[0],
        "metric_change": around[1],
        "sigmas": np.array(sigmas),
    }
    facts = {
        "n": len(seeds),
        "seeds": list(seeds),
        "part": "train",
        "examples": examples,
        "iterations": iterations,
        "probes": probes,
        "directions": directions,
        "train_only": list(train_only),
    }
    return Findings(arrays, report(*lines), draw, facts)


def _cell(values: NDArray[np.float64], form: str) -> str:
    bounds = t_interval(values)
    return f"{values.mean():{form}}" + (f" [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else "")
