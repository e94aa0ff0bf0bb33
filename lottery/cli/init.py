"""`lottery init`: draw a start under a mask, and report layer by layer whether it can train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, people, place
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery init lenet-300-100 --data fashion-mnist --density 0.05 --scope erk --init unit-scaled",
    "lottery init runs/NAME/seed-0/level-07 --repair isometry --out start/",
)


def init(
    model: Annotated[
        str, typer.Argument(help="A name (lottery list models), package.module:callable, or a ticket directory.")
    ],
    init: Annotated[
        str | None,
        typer.Option(help="How weights are drawn (lottery list initializers); by default as the model, or the ticket."),
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="A mask file, or the folder of a ticket.")] = None,
    density: Annotated[
        float | None, typer.Option(help="The fraction of the prunable weights to keep; by default all.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="How they are spread over the layers (lottery list scopes).")
    ] = None,
    criterion: Annotated[
        str | None, typer.Option(help="Which are kept: random, or one that needs no training (snip, synflow, …).")
    ] = None,
    repair: Annotated[
        str | None, typer.Option(help="Change the weights so that signals pass (lottery list repairs).")
    ] = None,
    data: Annotated[str | None, typer.Option(help="As for prune; by default digits, or the ticket's own.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and mask; by default 0, or the ticket's own.")] = None,
    examples: Annotated[int, typer.Option(help="How many examples the report looks at.")] = 64,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: init_params.gain=1.2. Repeatable."),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--model", help="Of a ticket: its model, where it has no name for it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", parser=place, help="Save the start as a ticket, to be trained.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", parser=place, help="Save a figure.")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> Result:
    """Draw a start under a mask, and report layer by layer whether it can train.

    Sizes of signals and gradients, singular values, dead units, scores that take no training, and one sentence: whether
    this start can train, and what to change. Nothing is trained; `lottery train` takes what --out saves.
    """
    from lottery.runs.ticket import Ticket
    from lottery.settings.fields import parse_assignments
    from lottery.studies.starting.starting import Asked, of_ticket, start
    from pruning.errors import BadValue

    more: dict[str, Any] = parse_assignments(set_ or [])
    init_params, repair_params = (dict(more.pop(f"{kind}_params", {})) for kind in ("init", "repair"))
    if Path(model).is_dir():
        look_here(of, init, trust=trust)
        unfit = [name for name, value in (("--mask", mask), ("--density", density), ("--scope", scope)) if value]
        if unfit or more or criterion or seed is not None:
            what = unfit[0] if unfit else "--seed, --criterion or --set"
            raise BadValue(f"{what}: a ticket has its own mask and settings; give --init, --repair, --data or --model")
        asked = Asked(init, init_params, None, None, repair, repair_params, examples)
        found = of_ticket(Ticket.load(Path(model)), of, data, trust=trust, asked=asked)
    else:
        if of is not None or trust:
            raise BadValue(f"--model and --trust are for a ticket directory, and {model} is none")
        look_here(model, init)
        named = {"scope": scope, "criterion": criterion, "seed": seed}
        more |= {name: value for name, value in named.items() if value is not None}
        found = start(
            model,
            data or "digits",
            init=init,
            init_params=init_params,
            mask=mask,
            density=density,
            repair=repair,
            repair_params=repair_params,
            examples=examples,
            **more,
        )
    stream = people(as_json)
    stream.show(found.report.report())
    if plot is not None:
        from matplotlib.figure import Figure

        from lottery.results.figure import save_figure

        figure = Figure(layout="constrained", dpi=130)
        found.report.draw(figure)
        save_figure(figure, plot)
    saved = found.ticket.save(out) if out is not None else None
    if saved is not None:
        print(f"Saved to {saved.path}; train it with: lottery train {saved.path}", file=stream)
    if not as_json:
        return None
    return {**found.report.as_json(), "ticket": None if saved is None else str(saved.path)}
