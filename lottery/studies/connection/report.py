"""Connections between tickets as a table and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lottery.results.columns import Report, report
from lottery.results.reporting import table
from lottery.studies.connection.tickets import Connections
from lottery.studies.measures.connectivity import STABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def connections_table(found: Connections) -> str:
    """Return the report of connections as text."""
    return str(connections_report(found))


def connections_report(found: Connections) -> Report:
    """Return one line for each pair and part; accuracies' barriers in percentage points."""
    scale, unit = (100, "pp") if found.measure.is_fraction else (1, found.measure.name)
    paths = _tickets(found)
    header = ["pair", "part", "error A", "error B", f"barrier ({unit})", "loss barrier", "masks", "interval"]
    rows = []
    for pair in found.pairs:
        name = f"{paths.index(pair.first) + 1} – {paths.index(pair.second) + 1}"
        shown = "–" if pair.line.overlap is None else f"{pair.line.overlap:.3f}"
        for part, curve in pair.line.curves.items():
            numbers = (scale * curve.error[0], scale * curve.error[-1], scale * curve.barrier, curve.loss_barrier)
            rows.append([name, part, *(f"{number:.4g}" for number in numbers), shown, "n/a"])
    shown = table(header, rows, least=(7, 10, 8, 8, 15, 12, 6, 8), left=[0], keys=2)
    stable = f" Less than {100 * STABLE:g} pp counts as stable." if found.measure.is_fraction else ""
    return report(
        shown,
        *(f"{number}: {path}" for number, path in enumerate(paths, start=1)),
        f"Barrier: largest error of {found.points} points on the line, minus the mean of the ends "
        f"(Frankle et al. 2020).{stable} Masks: |A ∩ B| / |A ∪ B|. One pair has no interval.",
    )


def connections_figure(found: Connections) -> Figure:
    """Return the error along the line of every pair, one panel for each part."""
    from matplotlib.figure import Figure

    from lottery.results.figure import bare

    parts = list(found.pairs[0].line.curves)
    figure = Figure(figsize=(4.8 * len(parts), 4.2), layout="constrained", dpi=130)
    scale, unit = (100, " (%)") if found.measure.is_fraction else (1, "")
    word = "error" if found.measure.is_fraction or not found.measure.higher_is_better else "negative"
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for pair in found.pairs:
            label = f"{_numbered(found, pair.first)} – {_numbered(found, pair.second)}"
            axes.plot(pair.line.alphas, scale * pair.line.curves[part].error, "o-", ms=3, lw=1.3, label=label)
        axes.set_xlabel("α, from the first ticket to the second")
        axes.set_ylabel(f"{part} {word if found.measure.is_fraction else f'{word} {found.measure.name}'}{unit}")
        bare(axes)
        axes.legend(frameon=False, fontsize=7)
    return figure


def _tickets(found: Connections) -> list[str]:
    """Return every ticket once, in the order in which they were given."""
    return list(dict.fromkeys(path for pair in found.pairs for path in (pair.first, pair.second)))


def _numbered(found: Connections, path: str) -> str:
    """Return a ticket's number in the table and the end of its path."""
    return f"{_tickets(found).index(path) + 1}: {'/'.join(Path(path).parts[-2:])}"
