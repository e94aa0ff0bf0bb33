"""A transfer table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lottery.results import reporting
from lottery.results.columns import Report, Table, report
from lottery.results.comparison import MATCHED, difference_text
from lottery.results.reporting import percent, units, within
from lottery.results.statistics import Estimate
from lottery.results.summary import level_json
from lottery.studies.transfer.table import Entry, TransferTable


def transfer_table_text(table: TransferTable) -> Report:
    """Return the matrix (rows: where tickets come from, columns: how they are trained) and all paired differences."""
    return report(_matrix(table), "", _differences(table), "", *_notes(table))


def rows_of(table: TransferTable) -> list[tuple[str, Sequence[Entry]]]:
    """Return every row of the matrix with its name, the random masks last."""
    names = [member.label for member in table.members]
    return [*zip(names, table.tickets, strict=True), ("random", table.random)]


def _matrix(table: TransferTable) -> Table:
    rows = [[name, *(_cell(table, entry) for entry in entries)] for name, entries in rows_of(table)]
    return reporting.table(["tickets of", *(f"trained as {member.label}" for member in table.members)], rows, left=[0])


def _cell(table: TransferTable, entry: Entry) -> str:
    """Return value, interval and difference to the target's own tickets, in percent for a fraction."""
    scale, _ = _unit(table, entry)
    found = entry.estimate
    if found is None:
        return "diverged"
    bounds = "" if found.low is None or found.high is None else f" {within((found.low, found.high), scale)}"
    against = entry.against_own
    if entry.source == entry.target:
        return f"{found.value * scale:.2f}{bounds} (own)"
    return f"{found.value * scale:.2f}{bounds}" + (f" ({against.value * scale:+.2f})" if against else "")


def _differences(table: TransferTable) -> Table:
    lines: list[list[str]] = []
    for name, entries in rows_of(table):
        for entry in entries:
            scale, unit = _unit(table, entry)
            shown = [_shown(each, scale, unit) for each in (entry.against_own, entry.against_random)]
            failed = len(entry.level.replicates) - len(entry.level.alive)
            count = str(entry.estimate.n if entry.estimate else 0) + (f", {failed} diverged" if failed else "")
            title = f"{name} → {table.members[entry.target].label}"
            lines.append([title, *shown, count])
    return reporting.table(["tickets", "against own", "against random", "n"], lines, left=[0])


def _notes(table: TransferTable) -> list[str]:
    levels = [
        f"{member.label}: level {member.level.level}, {percent(member.level.density)}" for member in table.members
    ]
    parts = ["test" if entry.level.test is not None else "validation" for entry in table.random]
    measures = dict.fromkeys(
        f"{part} {member.search.metric}" for part, member in zip(parts, table.members, strict=True)
    )
    lines = [
        f"Tickets: {'; '.join(levels)}.",
        f"Mean {' or '.join(measures)} with its 95 % interval (in parentheses: difference to the column's own "
        "tickets). Differences are paired by seed, with Student's t interval.",
        "Own: as the run itself had measured. Random: masks with the own tickets' density in every tensor, at their "
        "rewind weights.",
    ]
    kept = [member.level.kept for member in table.members]
    if max(kept) - min(kept) > MATCHED * min(kept):
        lines.append("These densities differ: an entry beside the diagonal also compares sparser with denser tickets.")
    return [*lines, f"Trainings: {table.out}"]


def transfer_json(table: TransferTable) -> dict[str, Any]:
    """Return what `lottery transfer --json` prints."""
    return {
        "runs": [
            {
                "label": member.label,
                "run": str(member.search.run),
                "level": member.level.level,
                "density": member.level.density,
                "kept": member.level.kept,
                "metric": member.search.metric,
                "higher_is_better": member.search.higher_is_better,
            }
            for member in table.members
        ],
        "entries": [_entry_json(table, entry) for _, entries in rows_of(table) for entry in entries],
        "out": str(table.out),
    }


def _entry_json(table: TransferTable, entry: Entry) -> dict[str, Any]:
    target = table.members[entry.target]
    kind = "random" if entry.source is None else "own" if entry.source == entry.target else "transferred"
    return {
        "kind": kind,
        "tickets_of": None if entry.source is None else table.members[entry.source].label,
        "trained_as": target.label,
        "estimate": _plain(entry.estimate),
        "against_own": _plain(entry.against_own),
        "against_random": _plain(entry.against_random),
        "density": entry.level.density,
        "layers": entry.level.layers,
        "replicates": level_json(entry.level, target.search)["replicates"],
    }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return vars(estimate) if estimate is not None else None


def _unit(table: TransferTable, entry: Entry) -> tuple[int, str]:
    return units(table.members[entry.target].search.is_fraction)


def _shown(estimate: Estimate | None, scale: int, unit: str) -> str:
    return "–" if estimate is None else difference_text(estimate, scale, unit)
