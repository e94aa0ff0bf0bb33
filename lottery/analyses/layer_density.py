"""Density of every tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lottery.analyses import Findings, Study, analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@analysis("layer-density", source="Frankle & Carbin 2019, appendix F (arXiv 1803.03635)")
def layer_density(study: Study) -> Findings:
    """Density of each prunable tensor at each level, mean and standard deviation over replicates.

    Returns:
        `density` (all weights) [levels]; `layers` and `layers_std` [levels, tensors].
    """
    levels = [level for level in study.search.levels if level.alive]
    names = list(levels[0].layers)
    tables = [np.array([[r.layers[name] for name in names] for r in level.alive]) for level in levels]
    mean = np.array([table.mean(0) for table in tables])
    spread = np.array([table.std(0, ddof=min(1, len(table) - 1)) for table in tables])
    density = np.array([level.density for level in levels])
    count = len(study.search.levels[0].replicates)
    width = max(10, *(len(name) + 2 for name in names))
    lines = [f"{'level':>5}  {'density':>8}" + "".join(f"{name:>{width}}" for name in names)]
    for level, total, row in zip(levels, density, mean, strict=True):
        cells = "".join(f"{100 * value:>{width - 1}.2f}%" for value in row)
        lines.append(f"{level.level:>5}  {100 * total:>7.2f}%{cells}")

    def draw(figure: Figure) -> None:
        from lottery.figure import style_density

        axes = figure.add_subplot()
        for column, name in enumerate(names):
            axes.plot(100 * density, 100 * mean[:, column], "o-", ms=3, label=f"{name} (n = {count})")
        axes.set_yscale("log")
        axes.set_ylabel("of this tensor's weights remaining (%)")
        style_density(axes, (100 * density).tolist())

    return Findings(
        {"density": density, "layers": mean, "layers_std": spread}, "\n".join(lines), draw, {"names": names, "n": count}
    )
