"""Options that several commands have, with what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.output import place

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:0.")]
Force = Annotated[bool, typer.Option("--force", help="Start over where an earlier attempt left something.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a stored run though nothing tells whether it is the same.")
]
Runs = Annotated[Path, typer.Option(metavar="FOLDER", parser=place, help="The folder in which runs are kept.")]
RunsOwn = Annotated[str | None, typer.Option(help="By default the run's own.")]
