"""`lottery transfer`: tickets of several runs, each trained as every other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson, Device
from lottery.cli.terminal.output import Result, people, place
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery transfer runs/GD runs/ES --density 0.1",
    "lottery transfer runs/A runs/B --level 7 --figure transfer.png",
)


def transfer(
    run: Annotated[list[Path], typer.Argument(help="Two or more run directories of one architecture.")],
    density: Annotated[
        float | None, typer.Option(help="Of the tickets: each run's nearest level; by default the lowest of all.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Of the tickets, in every run, instead of a density.")] = None,
    model: Annotated[str | None, typer.Option(help="By default the runs' own.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="By default each run's own; otherwise one for each run, repeatable.")
    ] = None,
    device: Device = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", parser=place, help="The folder in which the trainings are kept.")
    ] = Path("runs/transfer"),
    figure: Annotated[Path | None, typer.Option(help="Where to draw the table.")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars.")] = False,
) -> Result:
    """Train the tickets of every run as every other run trains, beside random masks: which tickets transfer?

    The same command resumes what was cut off and trains nothing that is already there.
    """
    from lottery.results.columns import report
    from lottery.results.figure import save_figure
    from lottery.search.levels.progress import Display
    from lottery.state.machine.bars import bars_wanted
    from lottery.studies.transfer.figure import transfer_figure
    from lottery.studies.transfer.report import transfer_json, transfer_table_text
    from lottery.studies.transfer.table import transfer

    look_here(model, trust=trust)
    display = Display(bars_wanted(quiet), None)
    given = {"model": model, "data": data or None, "device": device, "trust": trust}
    table = transfer(run, density, level, **given, out=out, display=display)
    drawn = save_figure(transfer_figure(table), figure) if figure is not None else None
    shown = report(transfer_table_text(table), *([f"Figure: {drawn}"] if drawn is not None else []))
    if quiet and not as_json:
        return str(shown)  # the result of a quiet command
    people(as_json).show(shown)
    if not as_json:
        return None
    return {**transfer_json(table), "figure": str(drawn) if drawn else None}
