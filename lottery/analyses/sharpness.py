"""Curvature and flatness of the optima of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lottery.analyses import Findings, Study, analysis
from lottery.curvature import EXAMPLES, flatness, surface, top_eigenvalues, trace
from lottery.intervals import t_interval

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

    Over the survivors of the mask and all other trainable parameters, in evaluation mode (`lottery.curvature`).

    Args:
        study: the search.
        examples: the most training examples.
        iterations: of Lanczos.
        probes: of Hutchinson's trace estimate.
        directions: random ones, for the flatness.
        sigmas: standard deviations of the step of every weight.

    Returns:
        `density` [levels]; `eigenvalue`, `eigenvalue_residual`, `trace`, `trace_error` (standard error over probes)
        and `dimension` [levels, replicates]; `loss`, `metric` [levels, replicates] at the optimum, `loss_rise` and
        `metric_change` [levels, replicates, sigmas], means over directions; `sigmas`.
    """
    view, seeds = study.view, study.seeds
    levels = [level for level in study.search.levels if level.alive]
    table = np.empty((len(levels), len(seeds), 7))
    around = np.empty((2, len(levels), len(seeds), len(sigmas)))
    for row, level in enumerate(levels):
        for column, seed in enumerate(seeds):
            where = surface(view, study.trained(seed, level.level), study.mask(seed, level.level), examples=examples)
            top = top_eigenvalues(where, 1, iterations)
            total = trace(where, probes)
            flat = flatness(where, sigmas, directions)
            loss, metric = flat.centre
            table[row, column] = (
                top.values[0], top.residuals[0], total.value, total.error, where.dimension, loss, metric
            )  # fmt: skip
            around[0, row, column] = flat.loss.mean(1) - loss
            around[1, row, column] = flat.metric.mean(1) - metric
    density = np.array([level.density for level in levels])
    names = ("eigenvalue", "eigenvalue_residual", "trace", "trace_error", "dimension", "loss", "metric")
    columns = {name: table[..., index] for index, name in enumerate(names)}
    rises = [f"loss at σ {sigma:g}" for sigma in sigmas]
    head = f"{'level':>5}  {'density':>8}  {'top eigenvalue':>26}  {'trace ± its error':>22}"
    lines = [head + "".join(f"{name:>16}" for name in rises)]
    for row, level in enumerate(levels):
        # The estimate's own error: the replicates' errors are independent.
        own = np.sqrt((columns["trace_error"][row] ** 2).sum()) / len(seeds)
        shown = f"{columns['trace'][row].mean():.4g} ± {own:.2g}"
        cells = "".join(f"{f'{value:+.3g}':>16}" for value in around[0, row].mean(0))
        top_cell = _cell(columns["eigenvalue"][row])
        lines.append(f"{level.level:>5}  {100 * level.density:>7.2f}%  {top_cell:>26}  {shown:>22}{cells}")
    lines += [
        f"Training loss on at most {examples:,} examples, in evaluation mode, over survivors and the other trainable "
        "parameters.",
        f"Means over n = {len(seeds)} replicates [95 % t interval]; Lanczos, {iterations} iterations; trace: "
        f"Hutchinson, {probes} probes; rise of the loss: mean of {directions} random directions.",
    ]

    def draw(figure: Figure) -> None:
        from lottery.figure import style_density

        panels = figure.subplots(1, 3)
        for axes, name in zip(panels[:2], ("eigenvalue", "trace"), strict=True):
            axes.plot(100 * density, columns[name].mean(1), "o-", ms=4, lw=1.5, label=f"mean (n = {len(seeds)})")
            bounds = [t_interval(values) for values in columns[name]]
            if all(bounds):
                low, high = np.array([b for b in bounds if b is not None]).T
                axes.fill_between(100 * density, low, high, alpha=0.18, lw=0, label="95 % t interval")
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
    }
    return Findings(arrays, "\n".join(lines), draw, facts)


def _cell(values: NDArray[np.float64]) -> str:
    bounds = t_interval(values)
    return f"{values.mean():.4g}" + (f" [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else "")
