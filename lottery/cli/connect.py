"""`lottery connect`: linear mode connectivity between trained tickets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, error_stream, people
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery connect runs/NAME/seed-0/level-07 runs/NAME/seed-1/level-07",
    "lottery connect runs/A/seed-0/level-07 runs/B/seed-0/level-07 --part test --figure barrier.png",
)


def connect(
    ticket: Annotated[list[Path], typer.Argument(help="Two ticket directories or more: runs/…/seed-0/level-07.")],
    points: Annotated[int, typer.Option(help="Networks on each line, both ends included.")] = 30,
    part: Annotated[
        list[str] | None,
        typer.Option(help="train, validation or test; repeatable. By default train and test."),
    ] = None,
    examples: Annotated[int | None, typer.Option(help="The most examples of a part; by default all.")] = None,
    model: Annotated[str | None, typer.Option(help="By default the first ticket's own.")] = None,
    data: Annotated[str | None, typer.Option(help="By default the first ticket's own.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Where to draw the error along the lines (PNG).")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> Result:
    """Measure the error barrier on the straight line between trained tickets (all pairs)."""
    from lottery.results.figure import save_figure
    from lottery.studies.connection.report import connections_figure, connections_report
    from lottery.studies.connection.tickets import connect

    look_here(model, trust=trust)
    found = connect(ticket, model, data, points=points, parts=part, examples=examples, trust=trust)
    stream = people(as_json)
    for warning in found.warnings():
        print(f"lottery: warning: {warning}", file=error_stream())
    stream.show(connections_report(found))
    print("Measured on the weights that the tickets hold; nothing was trained, and no result is stored.", file=stream)
    drawn = save_figure(connections_figure(found), figure) if figure is not None else None
    if drawn is not None:
        print(f"Figure: {drawn}", file=stream)
    return {**found.as_json(), "figure": str(drawn) if drawn else None} if as_json else None
