"""`lottery export`: a ticket in the format of another ecosystem."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, people, place
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery export runs/NAME/seed-0/level-07 --to onnx",
    "lottery export runs/NAME/seed-0/level-07 --to torch-prune --weights rewind --out exported",
)


def export(
    ticket: Annotated[Path, typer.Argument(help="A ticket directory: runs/…/seed-0/level-07.")],
    to: Annotated[str, typer.Option(help="torch-prune, parametrize, csr, compacted, onnx (lottery list exports).")],
    weights: Annotated[str, typer.Option(help="trained, or rewind: those that it trains from.")] = "trained",
    model: Annotated[str | None, typer.Option(help="By default the ticket's own.")] = None,
    data: Annotated[str | None, typer.Option(help="By default the ticket's own; gives examples to compare.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=place,
            help="The folder to make. By default <run>-seed-S-level-LL-<format> in the current folder.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is already there.")] = False,
    trust: Trust = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder only.")] = False,
) -> Result:
    """Write a ticket for another ecosystem, with a load.py that reads it without this toolkit.

    The file is read again and compared with the masked dense network before it counts as written.
    """
    from lottery.exports.exporting import export, exported_text

    look_here(model, trust=trust)
    exported = export(ticket, to, model, data, out=out, weights=weights, force=force, trust=trust)
    if not quiet:
        print(exported_text(exported), file=people(as_json))
    if as_json:
        return exported.as_json()
    return exported.path if quiet else None
