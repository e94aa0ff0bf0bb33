"""`python -m tests.architectures`: run the table, or a part of it, and write it."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from tests.architectures import table
from tests.architectures.listing import architectures
from tests.architectures.running import Bounds, run
from tests.architectures.steps import STEPS
from tests.architectures.verdicts import RIGHT


def main() -> None:
    """Run what is asked for and not stored yet; every architecture is stored as soon as it is through."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern of names, or several with commas: 'GPT*,lstm'")
    parser.add_argument("--steps", default=",".join(STEPS), help="which steps, with commas")
    parser.add_argument("--jobs", type=int, default=1, help="architectures at a time")
    parser.add_argument("--out", type=Path, default=Path("results/any-model"), help="where table.md and table.json go")
    parser.add_argument("--again", action="store_true", help="run also what is stored already")
    parser.add_argument("--seconds", type=float, default=600, help="the most that one architecture may take")
    parser.add_argument("--gigabytes", type=float, default=8, help="likewise, of memory")
    given = parser.parse_args()
    names, steps = list(architectures()), [step for step in STEPS if step in given.steps.split(",")]
    unknown = set(given.steps.split(",")) - set(STEPS)
    if unknown:
        parser.error(f"unknown steps: {', '.join(sorted(unknown))} (known: {', '.join(STEPS)})")
    rows = table.read(given.out)
    chosen = [
        name for name in names if any(fnmatch.fnmatchcase(name.lower(), p.lower()) for p in given.only.split(","))
    ]
    asked = [name for name in chosen if given.again or not set(steps) <= rows.get(name, {}).keys()]
    command = " ".join(["python -m tests.architectures", *sys.argv[1:]])
    for name, found in run(asked, steps, given.jobs, Bounds(given.seconds, given.gigabytes)):
        rows.setdefault(name, {}).update({verdict.step: verdict for verdict in found})
        table.write(given.out, rows, names, command)
        took = sum(verdict.seconds for verdict in found)
        print(f"{name} ({took:.0f} s): {', '.join(f'{v.step} {v.verdict}' for v in found)}", flush=True)
        for verdict in found:
            if verdict.verdict != RIGHT:
                print(f"    {verdict.step}, {verdict.verdict}: {verdict.reason}", flush=True)


if __name__ == "__main__":
    main()
