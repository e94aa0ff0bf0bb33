"""Density of every tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lottery.results.figure import draw_lines
from lottery.results.reporting import (
    Line,
    cells,
    line,
    logarithmic,
    narrow,
    percent,
    scaled,
    short_names,
    table,
    without_interval,
)
from lottery.studies.analyses import Findings, Study, analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A table with more tensors than these has no room for intervals.
_WIDE = 6


@analysis("layer-density", source="Frankle & Carbin 2019, appendix F (arXiv 1803.03635)")
def layer_density(study: Study) -> Findings:
    """Density of each prunable tensor at each level, mean and standard deviation over replicates.

    Returns:
        `density` (all weights) [levels]; `layers`, `layers_std` [levels, tensors] and `layers_interval` […, 2]:
        Student's t over the replicates that were alive at that level, NaN for one; `n` [levels] counts them.
    """
    levels = study.levels
    names = list(levels[0].layers)
    tables = [np.array([[r.layers[name] for name in names] for r in level.alive]) for level in levels]
    lines: dict[str, Line] = {
        short: line([values[:, column] for values in tables]) for column, short in enumerate(short_names(names))
    }
    density = np.array([level.density for level in levels])
    counts = np.array([len(level.alive) for level in levels])
    wide = len(lines) > _WIDE
    shown = [without_interval(one.mean) if wide else one for one in lines.values()]
    columns = [cells(one, ".1f", 100) for one in shown]
    rows = [
        [str(level.level), percent(level.density), *(column[at] for column in columns)]
        for at, level in enumerate(levels)
    ]
    text = table(["level", "density", *lines], rows, keys=2)
    what = "mean (its interval is in the arrays)" if wide else "mean and 95 % t interval"
    text += f"\nOf each tensor's weights remaining (%), {what} over n = {_range(counts)} replicates."

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        logarithmic(axes)
        draw_lines(axes, 100 * density, {label: scaled(narrow(one, 1.0), 100) for label, one in lines.items()})
        axes.set_ylabel("of this tensor's weights remaining (%)")
        axes.set_title(f"mean and 95 % t interval, n = {_range(counts)} replicates", fontsize=9)

    arrays = {
        "density": density,
        "layers": np.stack([values.mean for values in lines.values()], axis=1),
        "layers_std": np.array([values.std(0, ddof=min(1, len(values) - 1)) for values in tables]),
        "layers_interval": np.stack([values.interval for values in lines.values()], axis=1),
        "n": counts,
    }
    return Findings(arrays, text, draw, {"names": names})


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(high) if low == high else f"{low}…{high}"
