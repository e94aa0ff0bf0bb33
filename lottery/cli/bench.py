"""`lottery bench`: honest timings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, people, place
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery bench search --repeats 3",
    "lottery bench search --profile",
    "lottery bench sparse runs/NAME/seed-0/level-11 --batch-size 128",
)


def bench(
    what: Annotated[
        str,
        typer.Argument(
            help="search, stacks, es (evolution), methods (masks, probes, controls), init (starts), sparse (forward)."
        ),
    ],
    ticket: Annotated[
        Path | None, typer.Argument(help="With sparse: a ticket directory; its layers instead of random ones.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A name, a path, or synthetic; by default the ticket's own or fashion-mnist.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of a ticket; by default its own.")] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Of a ticket's examples; repeatable. By default 1, 128 and 1024.", min=1)
    ] = None,
    trust: Trust = False,
    repeats: Annotated[int, typer.Option(help="Timed runs of each; the median counts.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=place, help="Also write the rows to this JSON file.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="With search: split a step into its parts instead, level by level.")
    ] = False,
    figure: Annotated[Path | None, typer.Option(help="Where to draw the rows (PNG), if there is a figure.")] = None,
    as_json: AsJson = False,
) -> Result:
    """Time this toolkit against the usual way to do the same, in one process (minutes).

    `lottery bench sparse TICKET` says layer by layer what the sparse forward pass of a ticket runs on this machine, how
    long that takes, and whether it pays.
    """
    from lottery.bench import BENCHMARKS, timings
    from lottery.results.figure import save_figure
    from lottery.state.machine.environment import environment
    from pruning.disk.files import write_json
    from pruning.errors import BadValue

    for path in (out, figure):
        if path is not None and not path.parent.is_dir():
            raise BadValue(f"{path}: there is no folder {path.parent}")
    if ticket is not None:
        if what != "sparse":
            raise BadValue(f"bench {what} takes no ticket; lottery bench sparse TICKET does")
        if figure is not None:
            raise BadValue("the report of a ticket has no figure; lottery bench sparse --figure draws random masks")
        return _ticket(ticket, model, data, batch_size or [1, 128, 1024], device, trust, out, as_json)
    if model is not None or batch_size or trust:
        raise BadValue("--model, --batch-size and --trust belong to a ticket: lottery bench sparse TICKET")
    data = data or "fashion-mnist"
    if profile:
        if what != "search" or figure is not None:
            raise BadValue("--profile goes with lottery bench search, and draws nothing")
        return _profile(data, repeats, device, out, as_json)
    report = BENCHMARKS[what].value(data, repeats, device)
    if figure is not None and report.draw is None:
        raise BadValue(f"bench {what} has no figure")
    place = environment(report.rows[0]["device"])
    result = {"benchmark": what, "data": data, "note": report.note, "environment": place, "rows": report.rows}
    if out is not None:
        write_json(out, result)
    drawn = save_figure(report.draw(report.rows), figure) if figure is not None and report.draw is not None else None
    if as_json:
        return result
    people(as_json).show(timings(report) + report.note)
    if drawn is not None:
        print(f"Figure: {drawn}")
    return None


def _profile(data: str, repeats: int, device: str, out: Path | None, as_json: bool) -> Result:
    from lottery.bench.profile import profiled, shown
    from lottery.state.machine.environment import environment
    from pruning.disk.files import write_json

    found = profiled(data, repeats, device)
    result = {"benchmark": "search", "data": data, "environment": environment(device), **found}
    if out is not None:
        write_json(out, result)
    people(as_json).show(shown(found))
    return result if as_json else None


def _ticket(
    ticket: Path,
    model: str | None,
    data: str | None,
    batches: list[int],
    device: str,
    trust: bool,
    out: Path | None,
    as_json: bool,
) -> Result:
    from lottery.bench.tickets import sparse_reports
    from lottery.results.columns import report as show
    from lottery.results.reporting import table
    from lottery.runs.ticket import Ticket
    from lottery.state.machine.environment import environment
    from pruning.disk.files import write_json
    from pruning.sparse.network.layer_report import HEADER

    look_here(model, trust=trust)
    stream = people(as_json)
    rows: list[dict[str, Any]] = []
    # all of them first: a bar and a table do not share a terminal
    for report in list(sparse_reports(Ticket.load(ticket), model, data, batches, device, trust=trust)):
        layers = table(HEADER, report.rows(), left=[0])
        stream.show(show(f"Batch {report.batch[0]}", layers, *report.notes(), ""))
        rows.append(report.as_json())
    result = {"benchmark": "sparse", "ticket": str(ticket), "environment": environment(rows[0]["device"]), "rows": rows}
    if out is not None:
        write_json(out, result)
    return result if as_json else None
