"""Linear mode connectivity of a search."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import report
from lottery.results.intervals import Bounds, pairs_interval, t_interval
from lottery.results.reporting import percent, table, within
from lottery.state.machine.bars import with_bar
from lottery.studies.analyses import Findings, Study, analysis
from lottery.studies.measures.connectivity import STABLE, line_between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Enough to see a barrier, and a minute for five replicates of thirteen levels of LeNet on two cores.
POINTS, EXAMPLES = 11, 1000


@analysis("connectivity", source="Frankle et al. 2020 (arXiv 1912.05671); Paul et al. 2023 (arXiv 2210.03044)")
def connectivity(study: Study, points: int = POINTS, examples: int = EXAMPLES) -> Findings:
    """Error barrier on the straight line between successive levels, and between replicates of a level.

    Args:
        study: the search.
        points: networks on each line, both ends included.
        examples: the most examples of the test part (of the validation part where there is no test part).

    Returns:
        `density` [levels]. `level_barrier` and `level_loss_barrier` [levels − 1, replicates]: from a level to the next,
        which share a rewind point. `replicate_barrier` and `replicate_loss_barrier` [levels, pairs of replicates]:
        these come from different initializations and share none. `level_overlap`, `replicate_overlap`: of the masks.
        `level_interval` and `replicate_interval` […, 2], of the error barriers, NaN where there is none: Student's t
        over replicates, and for pairs the delete-one jackknife over replicates.
    """
    view, seeds = study.view, study.seeds
    part = "test" if view.parts.test is not None else "validation"
    levels = [level for level in study.search.levels if level.alive]
    pairs = list(itertools.combinations(range(len(seeds)), 2))
    between_levels, between_replicates, previous = [], [], []
    for level in with_bar(levels, "levels"):
        here = [(study.trained(seed, level.level), study.mask(seed, level.level)) for seed in seeds]
        ends = [*zip(previous, here, strict=False), *((here[i], here[j]) for i, j in pairs)]
        rows = []
        for (a, mask_a), (b, mask_b) in ends:
            masks = (mask_a, mask_b)
            line = line_between(view, a, b, masks=masks, points=points, parts=(part,), examples=examples)
            rows.append((line.curves[part].barrier, line.curves[part].loss_barrier, line.overlap))
        if previous:
            between_levels.append(rows[: len(seeds)])
        between_replicates.append(rows[len(previous) :])
        previous = here
    along = np.array(between_levels, np.float64).reshape(len(levels) - 1, len(seeds), 3)
    across = np.array(between_replicates, np.float64).reshape(len(levels), len(pairs), 3)
    density = np.array([level.density for level in levels])
    fraction = study.search.is_fraction
    most = 1 if fraction else math.inf
    along_bounds = [t_interval(row, least=0, most=most) for row in along[..., 0]]
    across_bounds = [pairs_interval(row, len(seeds), least=0, most=most) for row in across[..., 0]]
    scale, unit = (100, "pp") if fraction else (1, study.search.metric)
    rows = [
        [
            str(level.level),
            percent(level.density),
            _cell(along[row, :, 0], along_bounds[row], scale) if row < len(along) else "–",
            _cell(across[row, :, 0], across_bounds[row], scale),
        ]
        for row, level in enumerate(levels)
    ]
    header = ["level", "density", f"to the next ({unit})", f"between replicates ({unit})"]
    lines = [table(header, rows, least=(5, 8, 28, 28), keys=2)]
    lines += [
        f"Error barrier on {part} data ({points} points a line, at most {examples:,} examples): largest error on the "
        "line minus the mean of its ends.",
        f"Mean and 95 % interval; n = {len(seeds)} replicates, {len(pairs)} pairs (jackknife over replicates; three or "
        "more).",
        "Replicates have different initializations: they share no rewind point; expect a barrier between them.",
    ]

    def draw(figure: Figure) -> None:
        from lottery.results.figure import shade, style_density

        axes = figure.add_subplot()
        # Between two levels: drawn at the sparser one.
        for label, at, values, bounds, count in (
            ("from the level before", density[1:], along[..., 0], along_bounds, f"n = {len(seeds)}"),
            ("between replicates", density, across[..., 0], across_bounds, f"{len(pairs)} pairs"),
        ):
            if not values.size:
                continue
            (line,) = axes.plot(100 * at, scale * values.mean(1), "o-", ms=4, lw=1.5, label=f"{label} ({count})")
            shade(axes, 100 * at, bounds, scale, color=line.get_color(), alpha=0.18)
        if fraction:
            axes.axhline(100 * STABLE, color="#555555", lw=1, ls="--", label="stable below")
        axes.set_ylabel(f"error barrier, {part} data{' (pp)' if fraction else ''}")
        style_density(axes, (100 * density).tolist())

    arrays = {
        "density": density,
        "level_barrier": along[..., 0],
        "level_loss_barrier": along[..., 1],
        "level_overlap": along[..., 2],
        "level_interval": _bounds(along_bounds),
        "replicate_barrier": across[..., 0],
        "replicate_loss_barrier": across[..., 1],
        "replicate_overlap": across[..., 2],
        "replicate_interval": _bounds(across_bounds),
    }
    facts = {
        "part": part,
        "points": points,
        "examples": examples,
        "seeds": list(seeds),
        "pairs": [[seeds[i], seeds[j]] for i, j in pairs],
        "n": len(seeds),
        "replicates_share_rewind_point": False,
    }
    return Findings(arrays, report(*lines), draw, facts)


def _cell(values: NDArray[np.float64], bounds: Bounds | None, scale: int) -> str:
    if not values.size:
        return "–"
    return f"{scale * values.mean():.3f}" + (f" {within(bounds, scale)}" if bounds else "")


def _bounds(rows: list[Bounds | None]) -> NDArray[np.float64]:
    return np.array([(np.nan, np.nan) if row is None else row for row in rows], np.float64).reshape(len(rows), 2)
