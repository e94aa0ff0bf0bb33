"""`lottery instability`: barriers between copies of a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson, Device, RunsOwn
from lottery.cli.terminal.output import Result, people, whole_numbers
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery instability runs/NAME",
    "lottery instability runs/NAME --levels 0,5,10 --copies 5",
)


def instability(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    levels: Annotated[
        str | None, typer.Option(help="Which levels, for instance 0,5,10; by default the first, winning and last.")
    ] = None,
    copies: Annotated[int, typer.Option(help="Trainings of every ticket, each with another data order.")] = 3,
    replicates: Annotated[str | None, typer.Option(help="Seeds of the replicates: 0,1; by default all.")] = None,
    points: Annotated[int, typer.Option(help="Networks on each line, both ends included.")] = 30,
    part: Annotated[
        list[str] | None, typer.Option(help="train, validation or test; repeatable. By default test.")
    ] = None,
    examples: Annotated[int | None, typer.Option(help="The most examples of a part; by default all.")] = None,
    model: RunsOwn = None,
    data: RunsOwn = None,
    device: Device = None,
    figure: Annotated[
        Path | None, typer.Option(help="Where to draw the barriers; by default instability.png in the run.")
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars and no table; print the figure's path only.")] = False,
) -> Result:
    """Train copies of a run's tickets that differ in data order only, and measure the error barriers between them.

    The same command resumes what was cut off and trains nothing that is already there.
    """
    from lottery.results.figure import save_figure
    from lottery.search.levels.progress import Display
    from lottery.state.machine.bars import bars_wanted
    from lottery.studies.instability.report import stability_figure, stability_json, stability_report
    from lottery.studies.instability.running import instability as analyse

    look_here(model, trust=trust)
    stream = people(as_json)
    found = analyse(
        run,
        model,
        data,
        levels=whole_numbers("levels", levels) if levels is not None else None,
        replicates=whole_numbers("replicates", replicates) if replicates is not None else None,
        copies=copies,
        points=points,
        parts=part,
        examples=examples,
        device=device,
        trust=trust,
        display=Display(bars_wanted(quiet), None),
    )
    drawn = save_figure(stability_figure(found), figure or run / "instability.png")
    if not quiet:
        stream.show(stability_report(found))
        print(f"Copies: {run / 'instability'}", file=stream)
        print(f"Figure: {drawn}", file=stream)
    if as_json:
        return {**stability_json(found), "figure": str(drawn)}
    return drawn if quiet else None
