"""What came out: the numbers of each slice, and one summary as JSON and as Markdown, written anew after every slice."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEPT = 60_000
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|deselected)")
ROWS = 24


def tail(file: Path) -> None:
    """Keep the end of a log."""
    text = file.read_bytes()
    if len(text) > KEPT:
        replaced(file, b"...\n" + text[-KEPT:])


def last_line(file: Path) -> str:
    """Return the last line of a log that says something, at most 200 characters of it."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    # a bar goes back to the start of its line
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1][:200] if lines else ""


def counts(log: Path) -> dict[str, int]:
    """Return what pytest's last line counts.

    >>> path = tmp / "log"; _ = path.write_text("== 3 passed, 1 skipped in 2s ==")
    >>> counts(path)
    {'passed': 3, 'skipped': 1}
    """
    return {what: int(number) for number, what in COUNTS.findall(last_line(log))}


def numbers(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few numbers that a command's JSON is about: of a benchmark, a search, controls or the machine."""
    if "benchmark" in payload:
        rows = {row["what"]: [_seconds(row), row.get("speedup"), row.get("told")] for row in payload["rows"]}
        return {"device": payload["rows"][0].get("device"), "note": payload["note"], "rows": rows}
    if "winning" in payload:
        levels = {f"{level['density']:.4f}": level["test"] for level in payload["levels"]}
        winning = payload["winning"] or {}
        few = {name: winning.get(name) for name in ("level", "density", "test", "dense_test")}
        return {"device": payload["device"], "search_seconds": payload["seconds"], "winning": few, "test": levels}
    if "kind" in payload:
        against = {
            f"{level['kind']} at {level['density']:.4f}": [level["test"], level["against_ticket"]["value"]]
            for level in payload["levels"]
        }
        return {"test_and_difference_to_ticket": against}
    if "packages" in payload:
        return {name: payload[name] for name in ("commit", "cards", "torch", "jax", "missing", "wrong")}
    raise ValueError(f"no numbers are known of {', '.join(payload)}")


def headline(found: Mapping[str, Any]) -> str:
    """Return a line of what was found, for a command that said nothing else."""
    if "winning" in found:
        winning = found["winning"]
        ticket = "no winning ticket"
        if winning["density"] is not None:
            ticket = "density {density:.3f}, test {test:.4f}, dense {dense_test:.4f}".format(**winning)
        return f"{found['device']}, {found['search_seconds']:.1f} s, {ticket}"
    if "test_and_difference_to_ticket" in found:
        return "; ".join(
            f"{what}: {100 * by[1]:+.2f} points" for what, by in found["test_and_difference_to_ticket"].items()
        )
    if "cards" in found:
        return "; ".join(", ".join(card.values()) for card in found["cards"]) or "no card"
    return str(found.get("note") or "")


def _seconds(row: Mapping[str, Any]) -> float | None:
    return next((value for name, value in row.items() if name.startswith("seconds_per_")), None)


def replaced(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = file.with_name(f".{file.name}-{os.getpid()}")
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def write(results: Path, summary: Mapping[str, Any], pack: Path | None) -> None:
    """Write `summary.json` and `summary.md`; with `pack`, also all of the folder as one `.tar.gz`."""
    replaced(results / "summary.json", json.dumps(summary, indent=1).encode())
    replaced(results / "summary.md", markdown(summary).encode())
    if pack is not None:
        unfinished = pack.with_name(f".{pack.name}-{os.getpid()}")
        with tarfile.open(unfinished, "w:gz") as archive:
            for file in sorted(results.iterdir()):
                if file.is_file() and not file.name.startswith("."):
                    archive.add(file, file.name)
        os.replace(unfinished, pack)


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary for people."""
    rehearsal = "; tiny sizes: a rehearsal, its numbers say nothing" if summary["tiny"] else ""
    lines = [f"# On {summary['device']}", "", f"Data: {summary['data']}{rehearsal}.", ""]
    lines += [
        "| slice | exit | s | MiB of the card | MiB of the host | MHz | last line |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in summary["slices"]:
        cells = [record["name"], _exit(record), record.get("seconds"), record.get("card_mib"), record.get("host_mib")]
        cells += [record.get("card_mhz"), str(record.get("last", "")).replace("|", "\\|")[:120]]
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    for record in summary["slices"]:
        if record.get("numbers"):
            lines += ["", f"## {record['name']}", "", *_section(record["numbers"])]
    return "\n".join(lines) + "\n"


def _exit(record: Mapping[str, Any]) -> str:
    return record["state"] if record.get("exit") is None else str(record["exit"])


def _section(found: Mapping[str, Any]) -> list[str]:
    rows = found.get("rows")
    if not isinstance(rows, Mapping):
        return ["```json", json.dumps(found, indent=1), "```"]
    lines = [str(found["note"]), "", "| | s | times the baseline | told apart |", "|---|---|---|---|"]
    for what, (seconds, speedup, told) in list(rows.items())[:ROWS]:
        gain = "" if speedup is None else f"{speedup:.2f}"
        lines.append(f"| {what} | {seconds if seconds is None else format(seconds, '.6g')} | {gain} | {told or ''} |")
    return lines + ([f"… and {len(rows) - ROWS} more, in the JSON"] if len(rows) > ROWS else [])
