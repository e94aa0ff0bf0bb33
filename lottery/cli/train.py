"""`lottery train`: train a ticket again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson, Device, Force, Resume, Runs
from lottery.cli.terminal.output import Result, people
from lottery.cli.terminal.trusting import Trust, look_here


def train(
    ticket: Annotated[Path, typer.Argument(help="A ticket directory: runs/…/seed-0/level-07.")],
    trainer: Annotated[str | None, typer.Option(help="gd or es; by default the one that found the ticket.")] = None,
    strategy: Annotated[str | None, typer.Option(help="es: a name (lottery list strategies).")] = None,
    model: Annotated[str | None, typer.Option(help="By default the ticket's own.")] = None,
    data: Annotated[str | None, typer.Option(help="By default the ticket's own.")] = None,
    replicates: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed: data order, perturbations.")] = None,
    steps: Annotated[int | None, typer.Option(help="gd: optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="gd: epochs, instead of steps.")] = None,
    generations: Annotated[int | None, typer.Option(help="es: generations.")] = None,
    population: Annotated[int | None, typer.Option(help="es: members of a generation.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step or a generation.")] = None,
    lr: Annotated[float | None, typer.Option(help="gd: learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="gd: a name (lottery list optimizers).")] = None,
    device: Device = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the trainer; repeatable."),
    ] = None,
    out: Runs = Path("runs"),
    force: Force = False,
    resume: Resume = False,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars; print the trained ticket's path only.")] = False,
) -> Result:
    """Train a ticket again from its rewind weights: another trainer, strategy, data set or seed (transfer)."""
    flags = {
        "trainer": trainer,
        "strategy": strategy,
        "replicates": replicates,
        "seed": seed,
        "steps": steps,
        "epochs": epochs,
        "generations": generations,
        "population": population,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "device": device,
    }
    from lottery.results.summary import as_json as search_json
    from lottery.results.table import transfer_text
    from lottery.runs.ticket import Ticket
    from lottery.search.levels.progress import Display
    from lottery.settings.fields import parse_assignments
    from lottery.state.machine.bars import bars_wanted
    from lottery.studies.transfer.again import train_ticket

    look_here(model, trust=trust)
    settings = {key: value for key, value in flags.items() if value is not None} | parse_assignments(set_ or [])
    stream = people(as_json)
    display = Display(bars_wanted(quiet), None if quiet else stream.show)
    loaded = Ticket.load(ticket)
    search = train_ticket(
        loaded, model, data, settings=settings, out=out, force=force, resume=resume, trust=trust, display=display
    )
    if not quiet:
        print(transfer_text(search, loaded.info), file=stream)
    if as_json:
        return {**search_json(search), "from": str(ticket)}
    return search.levels[0].replicates[0].path if quiet else None
