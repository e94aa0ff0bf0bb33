"""`lottery show`: what a run found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, people
from lottery.cli.terminal.trusting import Trust

EXAMPLES = (
    "lottery show runs/NAME --plot",
    "lottery show runs/A runs/B --figure comparison.png",
    "lottery show runs/NAME --analysis mask-overlap",
)


def show(
    run: Annotated[list[Path], typer.Argument(help="A run directory, or several to compare.")],
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the figures again: density, learning curves, controls.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Where to draw: of several runs their metrics against density, of an analysis what it found "
            "(by default RUN/analysis-NAME.png)."
        ),
    ] = None,
    analysis: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Analyse the run instead (lottery list analyses); repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For an analysis: the model, where the run has no name for it.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For an analysis: the data, where the run has no name for them.")
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> Result:
    """Show a run's levels, the layers of its winning ticket, and where that ticket lies; or compare several runs."""
    from pruning.errors import BadValue

    if analysis:
        if plot:
            raise BadValue(
                "--plot draws a run's own figures; an analysis always draws its figure (--figure says where)"
            )
        from lottery.cli.analyzing import show_analyses

        return show_analyses(run, analysis, figure, model, data, trust, as_json)
    if model is not None or data is not None or trust:
        raise BadValue("--model, --data and --trust are for an analysis; name one with --analysis")
    if figure is not None and len(run) == 1:
        raise BadValue("--figure compares several runs; for one run use --plot")
    if plot and len(run) > 1:
        raise BadValue("--plot draws one run's figures; to compare several use --figure FILE.png")
    if len(run) == 1:
        return _show_one(run[0], plot, as_json)
    return _compare(run, figure, as_json)


def _compare(runs: list[Path], figure: Path | None, as_json: bool) -> Result:
    from lottery.results.comparison import compare, comparison_text, labels
    from lottery.results.figure import comparison_figure, save_figure
    from lottery.results.summary import as_json as search_json
    from lottery.runs.reading import read_search

    searches = [read_search(run) for run in runs]
    stream = people(as_json)
    stream.show(comparison_text(searches))
    if figure is not None:
        print(f"Figure: {save_figure(comparison_figure(searches), figure)}", file=stream)
    if not as_json:
        return None
    named = zip(labels(searches), searches, strict=True)
    found = [{"label": label, **search_json(search)} for label, search in named]
    return {"runs": found, "differences": [asdict(row) for row in compare(searches)]}


def _show_one(run: Path, plot: bool, as_json: bool) -> Result:
    from lottery.results.columns import report
    from lottery.results.summary import as_json as search_json
    from lottery.results.table import conclusion, layer_table, levels_of
    from lottery.runs.reading import read_search

    search = read_search(run)
    stream = people(as_json)
    stream.show(levels_of(search).whole(search.levels, search.winner.level if search.winner else None))
    print(conclusion(search), file=stream)
    winner = search.winning_replicate
    if winner is not None:
        stream.show(report("Layers of the winning ticket:", layer_table(winner)))
    figures = _draw(run, search) if plot else []
    for figure in figures:
        print(f"Figure: {figure}", file=stream)
    return {**search_json(search), "figures": [str(figure) for figure in figures]} if as_json else None


def _draw(run: Path, search: object) -> list[Path]:
    from lottery.results.figure import curves_figure, density_figure, save_figure
    from lottery.results.levels import Search
    from lottery.studies.ablation.report import ablation_figure
    from lottery.studies.ablation.stored import read_ablations

    assert isinstance(search, Search)
    chosen = [level.level for level in search.levels][:: max(1, len(search.levels) // 6)]
    controls = read_ablations(run)
    return [
        save_figure(density_figure(search), run / "density.png"),
        save_figure(curves_figure(search, chosen), run / "curves.png"),
        *([save_figure(ablation_figure(search, controls), run / "ablations.png")] if controls else []),
    ]
