"""Makes the tables of this folder: `python make.py bench busy reproduced`, on a machine that does nothing else.

`bench` runs `lottery bench search` and its `--profile`. `busy` times one search alone and beside a process that
computes, in turn. `reproduced` trains the protocol of an earlier result again and compares level by level: a level is
reproduced where the 95 % intervals of both runs overlap (the rule was fixed before the first run).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lottery.bench.loops.commands import ladder
from lottery.results.reporting import table
from lottery.state.machine.environment import environment

HERE = Path(__file__).parent
EARLIER = HERE.parent / "frankle2019-lenet-quick-fashion-mnist" / "summary.json"
PROTOCOL = ["--recipe", "frankle2019-lenet-quick", "--data", "fashion-mnist", "--replicates", "3"]
DATA, TIMES = "fashion-mnist", 5
# Half as many for what takes long: five at least of everything.
REPEATS = 10


def bench() -> None:
    """Time everything that `lottery bench search` times."""
    began = time.perf_counter()
    _lottery("bench", "search", "--repeats", str(REPEATS), "--out", str(HERE / "cpu.json"))
    seconds = time.perf_counter() - began
    shown = _lottery("bench", "search", "--profile", "--repeats", "20", "--out", str(HERE / "profile.json"))
    (HERE / "profile.txt").write_text(shown)
    found = json.loads((HERE / "cpu.json").read_text())
    lines = [_line(row) for row in found["rows"]]
    words = str(table(["", "n", "seconds", "min", "max", "ratio"], lines, left=[0]))
    (HERE / "table.txt").write_text(f"{words}\n{found['note']}\nThe whole benchmark took {seconds:.0f} s.\n")


def busy() -> None:
    """Time a search alone, and beside one process that computes."""
    run = ladder(DATA, "cpu", 55_000)
    seconds: dict[str, list[float]] = {"alone": [], "beside one computing process": []}
    run()
    for _ in range(TIMES):
        seconds["alone"].append(run())
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            seconds["beside one computing process"].append(run())
        finally:
            other.kill()
            other.wait()
    alone, beside = (statistics.median(each) for each in seconds.values())
    _write("busy.json", {"seconds": seconds, "medians": [alone, beside], "ratio": beside / alone})


def reproduced() -> None:
    """Train an earlier result again, and compare its levels."""
    earlier = json.loads(EARLIER.read_text())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = json.loads(_lottery("prune", *PROTOCOL, "--out", folder, "--json", "--quiet"))
        seconds = time.perf_counter() - began
    rows = [_compared(old, new) for old, new in zip(earlier["levels"], found["levels"], strict=True)]
    _write(
        "reproduced.json",
        {
            "rows": rows,
            "inside": sum(row["overlap"] for row in rows),
            "levels": len(rows),
            "seconds": seconds,
            "seconds_before": earlier["seconds"],
        },
    )


def _compared(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    before, now = (_interval(level) for level in (old, new))
    overlap = bool(before[0] <= now[1] and now[0] <= before[1])
    return {"level": old["level"], "density": old["density"], "before": before, "now": now, "overlap": overlap}


def _interval(level: dict[str, Any]) -> tuple[float, float]:
    from scipy.stats import t

    tests = [replicate["test"] for replicate in level["replicates"]]
    half = t.ppf(0.975, len(tests) - 1) * statistics.stdev(tests) / len(tests) ** 0.5
    return float(statistics.mean(tests) - half), float(statistics.mean(tests) + half)


def _line(row: dict[str, Any]) -> list[str]:
    seconds = [row["seconds_per_run"], row["fastest"], row["slowest"]]
    count = str(row["spread"]["runs"])
    return [row["what"], count, *(f"{each:.4f}" for each in seconds), f"{row['speedup']:.2f}"]


def _lottery(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lottery", *words], capture_output=True, text=True, check=True)
    return done.stdout


def _write(name: str, found: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps({"environment": environment("cpu"), **found}, indent=1) + "\n")


if __name__ == "__main__":
    for part in sys.argv[1:]:
        {"bench": bench, "busy": busy, "reproduced": reproduced}[part]()
