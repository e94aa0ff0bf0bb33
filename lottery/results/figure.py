"""Figures: accuracy against density, and learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lottery.results.comparison import labels
from lottery.results.intervals import Bounds
from lottery.results.levels import Level, Search
from lottery.results.reporting import Line, colours, metric_label, units
from lottery.results.statistics import interval
from pruning.disk.plain import plain, plain_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_TICKET, _VALIDATION, _WINNER = "#1f5fa8", "#777777", "#c8442c"


def density_figure(search: Search) -> Figure:
    """Return the metric against density on a log axis: what decides, with its tolerance, and what is reported."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    draw_density(figure.add_subplot(), search)
    return figure


def draw_density(axes: Axes, search: Search) -> None:
    """Draw the validation metric against density with the dense network's tolerance, and the test metric beside it.

    The winning ticket is chosen on validation data: the band is around the dense network's validation metric, and the
    star lies on the line that it belongs to.
    """
    scale, unit = units(search.is_fraction)
    levels = [level for level in search.levels if level.alive]
    density = [100 * level.density for level in levels]
    values = [scale * level.validation for level in levels]
    band = scale * search.tolerance.value
    axes.axhspan(values[0] - band, values[0] + band, color=_VALIDATION, alpha=0.15, lw=0)
    axes.axhline(
        values[0], color=_VALIDATION, lw=1, ls="--", label=f"dense on validation data ± tolerance ({band:.2g}{unit})"
    )
    axes.plot(density, values, "s-", color=_VALIDATION, ms=3, lw=1.2, label="ticket on validation data (decides)")
    if all(level.test is not None for level in levels):
        _draw_test(axes, search, levels, density)
    winner = search.winning_replicate
    if winner is not None:
        at = next(i for i, level in enumerate(levels) if level.level == winner.level)
        label = f"winning ticket, {density[at]:.2g} %"
        axes.plot(density[at], values[at], "*", color=_WINNER, ms=15, zorder=5, label=label)
    style_density(axes, density)
    axes.set_ylabel(metric_label(search.metric, search.is_fraction))


def _draw_test(axes: Axes, search: Search, levels: Sequence[Level], density: Sequence[float]) -> None:
    """Draw the test metric with its intervals, and with a dot for every replicate where there are several."""
    scale, _ = units(search.is_fraction)
    replicates = len(search.levels[0].replicates)
    values = [scale * level.test for level in levels if level.test is not None]
    bounds = [interval(level, search.is_fraction, search.test_examples) for level in levels]
    kind = f"95 % t interval, n = {replicates}" if replicates > 1 else "95 % Wilson interval, n = 1"
    shade(axes, density, bounds, scale, color=_TICKET, alpha=0.18, label=kind)
    if replicates > 1:
        for level in levels:
            points = [scale * replicate.test for replicate in level.alive if replicate.test is not None]
            axes.plot([100 * level.density] * len(points), points, ".", color=_TICKET, ms=3, alpha=0.5)
    axes.plot(density, values, "o-", color=_TICKET, ms=4, lw=1.5, label="ticket on test data (reported only)")


def curves_figure(search: Search, levels: Sequence[int]) -> Figure:
    """Return the mean validation metric against training steps, one line for each of the given levels."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    scale, _ = units(search.is_fraction)
    chosen = [level for level in search.levels if level.level in levels and level.alive]
    for color, level in zip(colormaps["viridis"](np.linspace(0, 0.9, len(chosen))), chosen, strict=True):
        histories = [replicate.history for replicate in level.alive]
        steps = [point.step for point in histories[0]]
        values = np.mean(
            [[scale * p.validation for p in history if p.validation is not None] for history in histories], axis=0
        )
        axes.plot(steps, values, color=color, lw=1.5, label=f"{100 * level.density:.3g} %")
    axes.set_xlabel("training step")
    axes.set_ylabel(metric_label(f"validation {search.metric}", search.is_fraction))
    bare(axes)
    axes.legend(frameon=False, fontsize=8, title="weights remaining")
    return figure


def comparison_figure(searches: Sequence[Search]) -> Figure:
    """Return the test metric against density for several searches, each with its 95 % interval and its n."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for number, (search, label) in enumerate(zip(searches, labels(searches), strict=True)):
        draw_levels(axes, search, search.levels, label, colormaps["tab10"](number), "os^Dvx"[number % 6])
    style_density(axes, [100 * level.density for level in searches[0].levels])
    label = metric_label(f"test {searches[0].metric}", searches[0].is_fraction)
    axes.set_ylabel(f"{label}, mean and 95 % interval")
    return figure


def draw_levels(axes: Axes, search: Search, levels: Sequence[Level], label: str, color: Any, marker: str) -> None:
    """Draw the mean test metric of some levels against density, with its 95 % interval; n goes into the label."""
    scale, _ = units(search.is_fraction)
    alive = [level for level in levels if level.alive]
    density = [100 * level.density for level in alive]
    values = [scale * (level.test if level.test is not None else level.validation) for level in alive]
    bounds = [interval(level, search.is_fraction, search.test_examples) for level in alive]
    count = len(search.levels[0].replicates)
    axes.plot(density, values, f"{marker}-", color=color, ms=4, lw=1.5, label=f"{label} (n = {count})")
    shade(axes, density, bounds, scale, color=color, alpha=0.15)


def shade(
    axes: Axes,
    density: Sequence[float] | NDArray[np.float64],
    bounds: Sequence[Bounds | None],
    scale: float = 1,
    **style: Any,
) -> None:
    """Shade between the ends of intervals, unless one of them is missing.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> shade(axes, [100, 10], [(0.8, 0.9), None])
    >>> shade(axes, [100, 10], [(0.8, 0.9), (0.7, 0.8)], 100, alpha=0.2)
    >>> len(axes.collections)
    1
    """
    found = [both for both in bounds if both is not None]
    if len(found) == len(bounds):
        low, high = scale * np.array(found).T
        axes.fill_between(density, low, high, lw=0, **style)


def draw_lines(axes: Axes, percent: NDArray[np.float64], lines: Mapping[str, Line]) -> None:
    """Draw lines with their intervals against density in percent; labels of many lines go beside the axes.

    >>> from matplotlib.figure import Figure
    >>> from lottery.results.reporting import without_interval
    >>> axes = Figure().add_subplot()
    >>> draw_lines(axes, np.array([100.0, 50.0]), {"fc1": without_interval(np.array([0.9, 0.8]))})
    >>> axes.lines[0].get_label(), axes.lines[0].get_xydata().tolist()
    ('fc1', [[100.0, 0.9], [50.0, 0.8]])
    """
    for color, (label, values) in zip(colours(len(lines)), lines.items(), strict=True):
        axes.plot(percent, values.mean, "o-", color=color, ms=3.5, lw=1.4, label=label)
        axes.fill_between(percent, values.low, values.high, color=color, alpha=0.15, lw=0)
    style_density(axes, percent.tolist())
    if len(lines) > 5:
        columns = 1 + len(lines) // 18
        axes.legend(
            frameon=False,
            fontsize=7 if columns == 1 else 6,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            ncols=columns,
        )


def style_density(axes: Axes, density: Sequence[float]) -> None:
    """Make the horizontal axis one of densities in percent: logarithmic, dense on the left.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> (line,) = axes.plot([100, 10], [0.9, 0.8], label="ticket")
    >>> style_density(axes, [100, 10])
    >>> axes.get_xscale(), bool(axes.xaxis_inverted())
    ('log', True)
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.invert_xaxis()
    short = min(density) > 20
    axes.xaxis.set_major_locator(FixedLocator(list(density)) if short else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("weights remaining (%)")
    bare(axes)
    axes.legend(frameon=False, fontsize=8)


def bare(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Draw a pale grid, and no frame above and on the right.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> bare(axes)
    >>> axes.spines["top"].get_visible(), axes.spines["left"].get_visible()
    (False, True)
    """
    axes.grid(axis=grid, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically, and return its path."""
    import io

    from pruning.disk.files import write_bytes

    for text in _texts(figure):
        text.set_text(plain_lines(text.get_text()))
        text.set_parse_math(False)  # a stored name with a dollar sign is no formula
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())
    return path


def words(text: object) -> str:
    r"""Return a stored name as the label of a tick: without control characters, and no formula.

    >>> words("$x")
    '\\$x'
    """
    return plain(text).replace("$", r"\$")


def _texts(figure: Figure) -> Iterator[Text]:
    """Yield the texts in a figure that may hold stored names, but for the ticks, where numbers may be formulas."""
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        legend = axes.get_legend()
        yield from [*legend.get_texts(), legend.get_title()] if legend is not None else []
