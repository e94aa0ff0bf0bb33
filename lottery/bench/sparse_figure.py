"""The picture of `lottery bench sparse`: speed-up against density, with the break-even line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def speedup_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Return one panel for each shape, one line for each batch size; log axes; 1 is break-even.

    Args:
        rows: of `lottery bench sparse`; those of single products are drawn, of the first precision.

    >>> row = {"kind": "product", "precision": "float32", "shape": [4, 8], "batch": 1, "density": 0.5, "speedup": 2.0}
    >>> panel = speedup_figure([row, {**row, "density": 0.1, "speedup": 3.0}]).axes[0]
    >>> panel.get_title(), panel.lines[0].get_ydata().tolist()
    ('4 → 8', [2.0, 3.0])
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    products = [row for row in rows if row["kind"] == "product" and row["precision"] == rows[0]["precision"]]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in products))
    batches = list(dict.fromkeys(row["batch"] for row in products))
    figure = Figure(figsize=(3.6 * len(shapes), 3.9), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(shapes), sharey=True, squeeze=False)[0]
    for axes, shape in zip(panels, shapes, strict=True):
        for place, batch in enumerate(batches):
            line = [row for row in products if tuple(row["shape"]) == shape and row["batch"] == batch]
            shade = place / max(len(batches) - 1, 1)
            axes.plot(
                [100 * row["density"] for row in line],
                [row["speedup"] for row in line],
                "o-",
                ms=3,
                lw=1.3,
                color=colormaps["viridis"](0.9 * shade),
                label=f"batch {batch}",
            )
        axes.axhline(1, color="#555555", lw=1, ls="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        densities = sorted({100 * row["density"] for row in products}, reverse=True)
        axes.set_xticks(densities, [f"{d:g}" for d in densities])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.set_title(f"{shape[0]} → {shape[1]}", fontsize=10)
        axes.set_xlabel("weights that stay (%)")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(f"speed-up over dense ({products[0]['precision']})")
    panels[0].annotate("break-even", (0.98, 0.97), xycoords=("axes fraction", "data"), va="top", ha="right", fontsize=8)
    panels[-1].legend(fontsize=8, loc="upper left")
    return figure
