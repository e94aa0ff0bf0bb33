"""A transfer table as a figure: for every way of training, what its own, the others' and random tickets reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lottery.results.figure import bare, words
from lottery.results.reporting import metric_label, units
from lottery.studies.transfer.report import rows_of
from lottery.studies.transfer.table import TransferTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def transfer_figure(table: TransferTable) -> Figure:
    """Return one panel for each way of training: every replicate, and each mean with its 95 % interval."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from lottery.results.statistics import by_seed

    count, rows = len(table.members), rows_of(table)
    figure = Figure(figsize=(3.4 * count + 0.6, 1.9 + 0.45 * len(rows)), layout="constrained", dpi=130)
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for target, (axes, member) in enumerate(zip(panels, table.members, strict=True)):
        scale, _ = units(member.search.is_fraction)
        for place, (_, entries) in enumerate(rows):
            entry = entries[target]
            color = "#777777" if entry.source is None else colormaps["tab10"](entry.source % 10)
            values = [scale * value for value in by_seed(entry.level).values()]
            axes.plot(values, [place] * len(values), "|", color=color, ms=9, alpha=0.45)
            if entry.estimate is None:
                continue
            mean, low, high = (
                scale * (bound if bound is not None else entry.estimate.value)
                for bound in (entry.estimate.value, entry.estimate.low, entry.estimate.high)
            )
            own = entry.source == entry.target
            style = {"fmt": "*", "ms": 11} if own else {"fmt": "o", "ms": 6}
            axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color=color, capsize=3, **style)
            if own:
                axes.axvline(mean, color=color, lw=1, ls="--", alpha=0.6)
        names = [f"tickets of {words(n)}" if k < count else words(n) for k, (n, _) in enumerate(rows)]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        part = "test" if table.random[target].level.test is not None else "validation"
        axes.set_xlabel(metric_label(f"{part} {member.search.metric}", member.search.is_fraction))
        axes.set_title(f"trained as {member.label}", fontsize=10)
        bare(axes, grid="x")
    densities = sorted({f"{100 * member.level.density:.3g} %" for member in table.members})
    seeds = sorted({len(entry.level.alive) for _, entries in rows for entry in entries})
    figure.suptitle(
        f"Tickets of {' and '.join(densities)} of the weights; ★ own, ● mean and 95 % interval, "
        f"n = {' to '.join(map(str, {seeds[0]: 0, seeds[-1]: 0}))}",
        fontsize=9,
    )
    return figure
