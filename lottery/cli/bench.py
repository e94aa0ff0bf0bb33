"""`lottery bench`: honest timings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    what: Annotated[str, typer.Argument(help="search, es (evolution) or methods (masks, probes, controls).")],
    data: Annotated[str, typer.Option(help="A name, a path, or synthetic.")] = "fashion-mnist",
    repeats: Annotated[int, typer.Option(help="Timed runs of each; the median counts.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the rows to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Time this toolkit against the usual way to do the same, in one process."""
    from lottery.bench import BENCHMARKS
    from lottery.cli.output import print_json
    from lottery.environment import environment
    from pruning.files import write_json

    report = BENCHMARKS[what].value(data, repeats, device)
    place = environment(report.rows[0]["device"])
    result = {"benchmark": what, "data": data, "note": report.note, "environment": place, "rows": report.rows}
    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
        return
    width = max(len(row["what"]) for row in report.rows)
    print(f"{'':<{width}} {f's / {report.unit}':>14} {'min':>8} {'max':>8} {'speed-up':>9}")
    for row in report.rows:
        print(
            f"{row['what']:<{width}} {row[f'seconds_per_{report.unit}']:>14.4f} {row['fastest']:>8.4f} "
            f"{row['slowest']:>8.4f} {row['speedup']:>8.1f}x"
        )
    print(report.note)
