"""`lottery bench`: honest timings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BENCHMARKS = ("search",)


def bench(
    what: Annotated[str, typer.Argument(help="search: seconds an epoch of LeNet-300-100.")],
    data: Annotated[str, typer.Option(help="A name, a path, or synthetic.")] = "fashion-mnist",
    repeats: Annotated[int, typer.Option(help="Timed runs of each; the median counts.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the rows to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Time this toolkit against the usual way to do the same, in one process."""
    from lottery.bench.search import bench_search
    from lottery.cli.output import print_json
    from lottery.environment import environment
    from pruning.errors import unknown
    from pruning.files import write_json

    if what not in BENCHMARKS:
        raise unknown("benchmark", what, BENCHMARKS)
    rows = bench_search(data, repeats, device)
    result = {"benchmark": what, "data": data, "environment": environment(rows[0]["device"]), "rows": rows}
    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
        return
    print(f"{'':<32} {'s / epoch':>10} {'min':>7} {'max':>7} {'speed-up':>9}")
    for row in rows:
        print(
            f"{row['what']:<32} {row['seconds_per_epoch']:>10.3f} {row['fastest']:>7.3f} {row['slowest']:>7.3f} "
            f"{row['speedup']:>8.1f}x"
        )
    first = rows[0]
    print(
        f"{first['examples']:,} images, batch {first['batch']}, {first['precision']}, {first['device']}, "
        f"{first['threads']} threads; median of {repeats} epochs, evaluation of the test images included"
    )
