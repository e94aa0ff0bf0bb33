"""`lottery ablate`: controls of a search's tickets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson, Device, RunsOwn
from lottery.cli.terminal.output import Result, people, whole_numbers
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery ablate runs/NAME --kind random-mask --kind reinit",
    "lottery ablate runs/NAME --kind shuffle-mask --levels 7,11 --repeats 3",
    "lottery ablate runs/NAME --kind reinit --init unit-scaled --init-param gain=1.0",
)


def ablate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    kind: Annotated[
        list[str], typer.Option("--kind", help="An ablation (lottery list ablations); repeatable.", metavar="NAME")
    ],
    levels: Annotated[
        str | None, typer.Option(help="Which levels, for instance 7,11; by default every pruned one.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often every ticket is ablated, by other chance each time.")] = 1,
    rewind: Annotated[str | None, typer.Option(help="For --kind rewind: the other rewind point (0, 500, 2ep).")] = None,
    init: Annotated[
        str,
        typer.Option(
            help="For reinit, sign-reinit: what draws the weights, under the mask (lottery list initializers)."
        ),
    ] = "model",
    init_param: Annotated[
        list[str] | None,
        typer.Option("--init-param", metavar="NAME=VALUE", help="A setting of that initializer. Repeatable."),
    ] = None,
    model: RunsOwn = None,
    data: RunsOwn = None,
    criterion: Annotated[str | None, typer.Option(help="Of a run whose criterion is package.module:function.")] = None,
    device: Device = None,
    figure: Annotated[
        Path | None, typer.Option(help="Where to draw ticket and controls; by default ablations.png in the run.")
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars and no table; print the figure's path only.")] = False,
) -> Result:
    """Train controls that break one thing about the tickets of a run, level by level, and compare.

    The same command resumes what was cut off and trains nothing that is already there.
    """
    from lottery.results.figure import save_figure
    from lottery.runs.reading import read_search
    from lottery.search.levels.progress import Display
    from lottery.settings.fields import parse_pairs
    from lottery.state.machine.bars import bars_wanted
    from lottery.studies.ablation.report import ablation_figure, ablation_report, ablations_json
    from lottery.studies.ablation.running import ablate as train_controls
    from lottery.studies.ablation.stored import read_ablations, with_plain

    look_here(model, criterion, init, trust=trust)
    stream = people(as_json)
    display = Display(bars_wanted(quiet), None)
    ablated = train_controls(
        run,
        kind,
        levels=whole_numbers("levels", levels) if levels is not None else None,
        repeats=repeats,
        rewind=rewind,
        init=init,
        init_params=parse_pairs("--init-param", init_param or []),
        model=model,
        data=data,
        criterion=criterion,
        device=device,
        trust=trust,
        display=display,
    )
    search, every = read_search(run), read_ablations(run)
    drawn = save_figure(ablation_figure(search, every), figure or run / "ablations.png")
    if not quiet:
        stream.show(ablation_report(search, with_plain(ablated, every)))
        print(f"Controls: {run / 'ablations'}", file=stream)
        print(f"Figure: {drawn}", file=stream)
    if as_json:
        return {**ablations_json(search, ablated), "figure": str(drawn)}
    return drawn if quiet else None
