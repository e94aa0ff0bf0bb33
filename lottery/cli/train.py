"""`lottery train`: train a ticket again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lottery.cli.terminal.options import AsJson, Force, Resume, Runs
from lottery.cli.terminal.output import Result, people
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery train runs/NAME/seed-0/level-07 --seed 5",
    "lottery train runs/NAME/seed-0/level-07 --trainer es --strategy sep-cma-es --generations 2000",
)


def train(
    ticket: Annotated[Path, typer.Argument(help="A ticket directory: runs/…/seed-0/level-07.")],
    settings: Mapping[str, Any],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the trainer. Repeatable."),
    ] = None,
    out: Runs = Path("runs"),
    force: Force = False,
    resume: Resume = False,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars; print the trained ticket's path only.")] = False,
) -> Result:
    """Train a ticket again from its rewind weights.

    What is not given is as it was when the ticket was found: model, data, trainer and how it trains. Another trainer,
    strategy, data set or seed shows whether the ticket transfers.
    """
    from lottery.results.summary import as_json as search_json
    from lottery.results.table import transfer_text
    from lottery.runs.ticket import Ticket
    from lottery.search.levels.progress import Display
    from lottery.settings.fields import parse_assignments
    from lottery.state.machine.bars import bars_wanted
    from lottery.studies.transfer.again import train_ticket

    given = {**settings, **parse_assignments(set_ or [])}
    model, data = given.pop("model", None), given.pop("data", None)
    look_here(model, given.get("trainer"), trust=trust)
    stream = people(as_json)
    display = Display(bars_wanted(quiet), None if quiet else stream.show)
    loaded = Ticket.load(ticket)
    search = train_ticket(
        loaded, model, data, settings=given, out=out, force=force, resume=resume, trust=trust, display=display
    )
    if not quiet:
        print(transfer_text(search, loaded.info), file=stream)
    if as_json:
        return {**search_json(search), "from": str(ticket)}
    return search.levels[0].replicates[0].path if quiet else None
