"""Controls beside the search they belong to: a table, JSON, a figure. Differences are paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lottery.results.columns import Report, report
from lottery.results.comparison import difference_text
from lottery.results.levels import Level, Search
from lottery.results.reporting import metric_label, percent, table, units, within
from lottery.results.statistics import Estimate, by_seed, interval, paired_difference, pairs
from lottery.results.summary import level_json
from lottery.studies.ablation.stored import Ablated

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def difference(ticket: Level, control: Level) -> Estimate | None:
    """Return control minus ticket, paired by seed: test metrics, or validation metrics without a test part."""
    return paired_difference(*pairs(by_seed(control), by_seed(ticket)))


def ablation_table(search: Search, ablated: Sequence[Ablated]) -> str:
    """Return the report of controls as text."""
    return str(ablation_report(search, ablated))


def ablation_report(search: Search, ablated: Sequence[Ablated]) -> Report:
    """Return, for every level and control, its mean metric and its difference to the ticket with a 95 % interval."""
    scale, unit = units(search.is_fraction)
    lines: list[list[str]] = []
    for number in sorted({level.level for each in ablated for level in each.levels}):
        ticket = search.levels[number]
        rows = [("(ticket)", ticket, None)]
        for each in ablated:
            found = [level for level in each.levels if level.level == number]
            rows += [(each.kind, level, difference(ticket, level)) for level in found]
        for kind, level, against in rows:
            bounds = interval(level, search.is_fraction, search.test_examples)
            value = level.test if level.test is not None else level.validation
            delta = difference_text(against, scale, unit) if against is not None else ""
            failed = len(level.replicates) - len(level.alive)
            shown = [f"{value * scale:.2f}", within(bounds, scale), str(len(level.alive)), delta]
            lines.append([str(number), percent(level.density), kind, *shown, f"{failed} diverged" if failed else ""])
    repeats = sorted({each.repeats for each in ablated})
    measured = f"{_part(search)} {search.metric}{' %' if search.is_fraction else ''}"
    header = ["level", "density", "control", measured, "95 % interval", "n", "against the ticket", ""]
    return report(
        table(header, lines, least=(5, 8, 18, 10, 17, 2, 30, 0), left=[2, 7], keys=3),
        f"n: replicates; each control was trained {' or '.join(map(str, repeats))} time(s) for every seed and averaged "
        "within it. Differences are paired by seed, with Student's t interval.",
    )


def _part(search: Search) -> str:
    return "test" if search.levels[0].test is not None else "validation"


def ablations_json(search: Search, ablated: Sequence[Ablated]) -> dict[str, Any]:
    """Return what `lottery ablate --json` prints: `levels` as a search has them, one for each kind and level."""
    levels = []
    for each in ablated:
        for level in each.levels:
            against = difference(search.levels[level.level], level)
            repeated = [
                {"repeat": number, **row}
                for number, repeat in enumerate(each.every[level.level])
                for row in level_json(repeat, search)["replicates"]
            ]
            levels.append(
                {
                    **level_json(level, search),
                    "kind": each.kind,
                    "drawn_by": dict(each.drawn_by) or None,
                    "repeats": len(each.every[level.level]),
                    "against_ticket": vars(against) if against else None,
                    "replicates": repeated,
                }
            )
    return {
        "run": str(search.run),
        "metric": search.metric,
        "kind": ablated[0].kind if len(ablated) == 1 else [each.kind for each in ablated],
        "levels": levels,
    }


def ablation_figure(search: Search, ablated: Sequence[Ablated]) -> Figure:
    """Return the test metric against density: the ticket and its controls, each with its 95 % interval and its n."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from lottery.results.figure import draw_levels, style_density

    figure = Figure(figsize=(7.2, 4.8), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    shown = {level.level for each in ablated for level in each.levels}
    draw_levels(axes, search, [level for level in search.levels if level.level in shown], "ticket", "#1f5fa8", "o")
    for number, each in enumerate(ablated):
        color, marker = colormaps["tab10"]((number + 1) % 10), "s^Dvx"[number % 5]
        times = f" × {each.repeats}" if each.repeats > 1 else ""
        draw_levels(axes, search, each.levels, each.kind + times, color, marker)
    dense = search.levels[0]
    scale, _ = units(search.is_fraction)
    axes.axhline(
        scale * (dense.test if dense.test is not None else dense.validation),
        color="#555555",
        lw=1,
        ls="--",
        label="dense",
    )
    style_density(axes, [100 * search.levels[number].density for number in sorted(shown)])
    axes.set_ylabel(metric_label(f"{_part(search)} {search.metric}", search.is_fraction))
    return figure
