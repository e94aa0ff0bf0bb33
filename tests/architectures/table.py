"""The table as JSON and as text."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lottery.state.machine.environment import environment
from pruning.disk.files import read_json, write_json, write_text
from tests.architectures.steps import STEPS
from tests.architectures.verdicts import RIGHT, VERDICTS, Verdict

Rows = dict[str, dict[str, Verdict]]
_SIGNS = {"right": "✓", "refused": "refused", "crash": "**crash**", "wrong": "**wrong**", "not reached": "–"}


def read(folder: Path) -> Rows:
    """Return what is stored already, by architecture and step."""
    path = folder / "table.json"
    stored = read_json(path)["rows"] if path.exists() else {}
    return {
        name: {step: Verdict(**{**found, "dense": tuple(found["dense"])}) for step, found in row.items()}
        for name, row in stored.items()
    }


def write(folder: Path, rows: Rows, names: Sequence[str], command: str) -> None:
    """Write `table.json` and `table.md`, in the list's order."""
    rows = {name: rows[name] for name in names if name in rows}
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "seconds": round(sum(verdict.seconds for row in rows.values() for verdict in row.values())),
        "environment": environment("cpu"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: {step: dataclasses.asdict(each) for step, each in row.items()} for name, row in rows.items()}
    write_json(folder / "table.json", {**about, "totals": totals(rows), "rows": stored})
    write_text(folder / "table.md", text(about, rows))


def totals(rows: Rows) -> dict[str, dict[str, int]]:
    """Return how often each step ended in each way."""
    ways = {step: Counter(row[step].verdict for row in rows.values() if step in row) for step in STEPS}
    return {step: {verdict: count[verdict] for verdict in VERDICTS} for step, count in ways.items()}


def text(about: Mapping[str, Any], rows: Rows) -> str:
    """Return the table as a page."""
    env = about["environment"]
    lines = [
        "# Any model",
        "",
        f"`{about['command']}`, {about['date']}, {about['seconds']:,} s; {_machine(env)}.",
        "",
        "`right`: confirmed by a computation of its own in PyTorch (or onnxruntime). `refused`: one line of the "
        "toolkit's own errors. `crash`: any other error. `wrong`: a result that was not confirmed. `not "
        "reached`: no ticket to begin with.",
        "",
        f"| step | {' | '.join(VERDICTS)} |",
        f"|---|{'---|' * len(VERDICTS)}",
        *(f"| {step} | {' | '.join(map(str, count.values()))} |" for step, count in totals(rows).items()),
        "",
        f"| architecture | {' | '.join(STEPS)} | dense in the sparse forward |",
        f"|---|{'---|' * (len(STEPS) + 1)}",
        *(_row(name, row) for name, row in rows.items()),
        "",
        "## Reasons",
        "",
    ]
    for name, row in rows.items():
        lines += [
            f"- {name}, {step}, {v.verdict}: {v.reason}"
            for step, v in row.items()
            if v.verdict != RIGHT and v.reason != "no ticket"
        ]
    return "\n".join([*lines, ""])


def _row(name: str, row: Mapping[str, Verdict]) -> str:
    dense = row["sparse"].dense if "sparse" in row else ()
    shown = ", ".join(f"`{each}`" for each in dense[:2]) + (f" and {len(dense) - 2} more" if len(dense) > 2 else "")
    return f"| {name} | {' | '.join(_SIGNS[row[step].verdict] if step in row else '' for step in STEPS)} | {shown} |"


def _machine(env: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in env.items() if isinstance(value, str | int))
