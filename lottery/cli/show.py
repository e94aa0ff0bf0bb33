"""`lottery show`: what a run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    plot: Annotated[bool, typer.Option("--plot", help="Draw the figures again: density and learning curves.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Show a run's levels, the layers of its winning ticket, and where that ticket lies."""
    from lottery.cli.output import people, print_json
    from lottery.reading import read_search
    from lottery.summary import as_json as search_json
    from lottery.table import HEADER, conclusion, layer_table, level_row

    search = read_search(run)
    stream = people(as_json)
    print(HEADER, file=stream)
    for level in search.levels:
        print(level_row(level, search.levels[0], search.is_fraction, search.test_examples), file=stream)
    print(conclusion(search), file=stream)
    winner = search.winning_replicate
    if winner is not None:
        print(f"Layers of the winning ticket:\n{layer_table(winner)}", file=stream)
    figures = _draw(run, search) if plot else []
    for figure in figures:
        print(f"Figure: {figure}", file=stream)
    if as_json:
        print_json({**search_json(search), "figures": [str(figure) for figure in figures]})


def _draw(run: Path, search: object) -> list[Path]:
    from lottery.figure import curves_figure, density_figure, save_figure
    from lottery.results import Search

    assert isinstance(search, Search)
    chosen = [level.level for level in search.levels][:: max(1, len(search.levels) // 6)]
    return [
        save_figure(density_figure(search), run / "density.png"),
        save_figure(curves_figure(search, chosen), run / "curves.png"),
    ]
