"""What the analyses print and draw alike: aligned tables, means with intervals, lines against density."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Table
from lottery.results.intervals import Bounds, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More lines than these are told apart by a gradient, from the first tensor to the last.
_NAMED_COLOURS = 8


@dataclass(frozen=True)
class Line:
    """A mean at each level, and the ends of its interval; NaN where there is none."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def interval(self) -> NDArray[np.float64]:
        """Both ends, [levels, 2]."""
        return np.stack([self.low, self.high], axis=-1)


def line(rows: Sequence[Sequence[float] | NDArray[np.float64]], least: float = -math.inf) -> Line:
    """Return the mean of each row with Student's 95 % t interval, which does not go below `least`.

    >>> line([[1.0, 1.0]]).interval.tolist(), math.isnan(line([[1.0]]).low[0])
    ([[1.0, 1.0]], True)
    """
    return line_with(rows, [t_interval(np.asarray(row), least) for row in rows])


def line_with(rows: Sequence[Sequence[float] | NDArray[np.float64]], bounds: Sequence[Bounds | None]) -> Line:
    """Return the mean of each row (NaN of an empty one) with these intervals.

    >>> both = line_with([[1.0, 3.0], []], [(0.5, 3.5), None])
    >>> both.mean.tolist(), both.low.tolist(), both.high.tolist()
    ([2.0, nan], [0.5, nan], [3.5, nan])
    """
    ends = np.array([(math.nan, math.nan) if one is None else one for one in bounds], np.float64).reshape(-1, 2)
    means = [float(np.mean(row)) if len(row) else math.nan for row in rows]
    return Line(np.array(means, np.float64), ends[:, 0], ends[:, 1])


def units(is_fraction: bool) -> tuple[int, str]:
    """Return what a metric is multiplied by for people, and what its differences are in.

    >>> units(True), units(False)
    ((100, ' pp'), (1, ''))
    """
    return (100, " pp") if is_fraction else (1, "")


def metric_label(name: str, is_fraction: bool) -> str:
    """Return the label of an axis with a metric.

    >>> metric_label("test accuracy", True), metric_label("return", False)
    ('test accuracy (%)', 'return')
    """
    return f"{name}{' (%)' if is_fraction else ''}"


def percent(density: float) -> str:
    """Return a density as tables show it.

    >>> percent(0.2)
    '20.00%'
    """
    return f"{100 * density:.2f}%"


def within(bounds: Bounds | None, scale: float = 1) -> str:
    """Return an interval, or a dash where there is none.

    >>> within((0.4, 0.6), 100), within(None)
    ('[40.00, 60.00]', '–')
    """
    return f"[{bounds[0] * scale:.2f}, {bounds[1] * scale:.2f}]" if bounds else "–"


def cell(mean: float, low: float, high: float, form: str = ".3f") -> str:
    """Return a mean with its interval, or alone where there is none, or a dash.

    >>> cell(0.5, 0.4, 0.6, ".1f"), cell(0.5, math.nan, math.nan), cell(math.nan, math.nan, math.nan)
    ('0.5 [0.4, 0.6]', '0.500', '–')
    """
    if math.isnan(mean):
        return "–"
    bounds = "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{mean:{form}}{bounds}"


def cells(values: Line, form: str = ".3f", scale: float = 1.0) -> list[str]:
    """Return one cell for each level of a line."""
    ends = zip(values.mean * scale, values.low * scale, values.high * scale, strict=True)
    return [cell(float(mean), float(low), float(high), form) for mean, low, high in ends]


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    least: Sequence[int] = (),
    left: Collection[int] = (),
    keys: int = 1,
) -> Table:
    """Return a table for people: `str` of it is text in columns, and a text that is added stands below it.

    Args:
        header: the columns' names.
        rows: texts below them.
        least: how wide each column is at the least, where there is room; by default as wide as what stands in it.
        left: columns that are aligned on the left, by position; the others are on the right.
        keys: how many columns at the left say what a row is: they are repeated where a terminal is too narrow and the
            table is shown in parts.

    >>> print(table(["level", "x"], [["0", "1.00"]]) + "One level.")
    level     x
        0  1.00
    One level.
    >>> print(table(["name", "x"], [["fc", "1.00"]], least=(6, 6), left=[0]))
    name         x
    fc        1.00
    """
    return Table(tuple(header), tuple(map(tuple, rows)), frozenset(left), least=tuple(least), keys=keys)


def short_names(names: Sequence[str]) -> list[str]:
    """Drop the `.weight` that all tensors end with.

    >>> short_names(["fc1.weight", "fc2.weight"]), short_names(["weight"])
    (['fc1', 'fc2'], ['weight'])
    """
    return [name.removesuffix(".weight") for name in names]


def colours(count: int) -> list[tuple[float, ...]]:
    """Return colours for `count` lines: distinct ones for a few, a gradient for many.

    >>> len(set(colours(3))), len(set(colours(30)))
    (3, 30)
    """
    from matplotlib import colormaps

    if count <= _NAMED_COLOURS:
        return [tuple(colormaps["tab10"](number)) for number in range(count)]
    return [tuple(colormaps["viridis"](value)) for value in np.linspace(0, 0.92, count)]


def logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> logarithmic(axes)
    >>> axes.get_yscale(), axes.yaxis.get_major_formatter()(0.5, 0)
    ('log', '0.5')
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def narrow(values: Line, most: float) -> Line:
    """Return a line fit for a log axis: its interval between a tenth of the mean and `most`."""
    return Line(values.mean, np.maximum(values.low, values.mean / 10), np.minimum(values.high, most))


def scaled(values: Line, factor: float) -> Line:
    """Return a line in another unit."""
    return Line(values.mean * factor, values.low * factor, values.high * factor)


def without_interval(means: NDArray[np.float64]) -> Line:
    """Return a line that has no interval.

    >>> alone = without_interval(np.array([0.9]))
    >>> alone.mean.tolist(), alone.interval.tolist()
    ([0.9], [[nan, nan]])
    """
    nothing = np.full(len(means), math.nan)
    return Line(means, nothing, nothing)
