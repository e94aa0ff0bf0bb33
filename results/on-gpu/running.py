"""Runs the slices: `results/on-gpu/run RESULTS MINUTES [WHEELS]`; what ended well before is not run again."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import summary
from processes import Ended, run
from slices import ROOT, SLICES, Slice, filled

HERE = Path(__file__).resolve().parent
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
NO_TESTS = 5
INTERRUPTED = 130
# A rehearsal may run beside other work, on few cores: what is tiny still has to be imported and compiled.
SLOWER = 3


@dataclass(frozen=True)
class Place:
    """Where and how everything runs.

    Attributes:
        results: the folder of small files that comes out.
        work: what is large and may go: runs, images, wheels; the same for the same results folder.
        device: `cuda` or `cpu`.
        tiny: whether sizes are those of a rehearsal.
        data: a name or a path of images of 28×28 pixels.
        environment: of every process.
    """

    results: Path
    work: Path
    device: str
    tiny: bool
    data: str
    environment: Mapping[str, str]

    def words(self, part: Slice) -> list[str]:
        """Return the command of a slice, ready to run."""
        program, *rest = filled((*part.command, *(part.tiny if self.tiny else ())), lambda name: self._fill(name, part))
        if program == "python":
            return [sys.executable, *rest]
        if program == "pytest":
            side_by_side = ["-n", str(min(8, os.cpu_count() or 1)), "--dist=worksteal"] if _there("xdist") else []
            options = ["-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-W", "default"]
            return [sys.executable, "-m", "pytest", *options, *side_by_side, *rest]
        sizes = part.tiny_sizes if self.tiny else part.sizes
        start = [str(HERE / "sized.py"), *sizes, "--"] if sizes else ["-m", "lottery"]
        return [sys.executable, *start, *rest]

    def _fill(self, name: str, part: Slice) -> str:
        if name.startswith("run:"):
            return found_run(self.results, name.removeprefix("run:")) or "nowhere"
        return {"device": self.device, "data": self.data, "runs": str(self.work / "runs" / part.name)}[name]


def found_run(results: Path, name: str) -> str | None:
    """Return the run directory that a slice's JSON names, where it is still there."""
    try:
        run = json.loads((results / f"{name}.json").read_bytes())["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if Path(run).is_dir() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done, as long as there is time; return 0 where every slice that was begun ended well."""
    given = _arguments(arguments)
    end = time.monotonic() + 60 * given.minutes
    place = prepared(given)
    state = _state(place)
    chosen = [part for part in SLICES if not given.only or part.name in given.only]
    _listen()
    wrong = 0
    try:
        for part in chosen:
            wrong += _one(part, chosen, place, state, end, given.pack)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is not done", flush=True)
        return INTERRUPTED
    finally:
        summary.write(place.results, state, given.pack)
    done = sum(record["exit"] == 0 for record in state["slices"])
    print(f"{place.results / 'summary.md'}: {done} done", flush=True)
    return int(wrong > 0)


def _one(
    part: Slice, chosen: Sequence[Slice], place: Place, state: dict[str, Any], end: float, pack: Path | None
) -> int:
    """Run a slice unless it is done, lacks what it goes on with, or has too little time; return 1 if it failed."""
    record = next((each for each in state["slices"] if each["name"] == part.name), None)
    if record is None:
        record = {"name": part.name, "exit": None, "state": "not begun"}
        state["slices"].append(record)
    after = [each for each in chosen if each.after == part.name and _exit_of(state, each.name) != 0]
    if record["exit"] == 0 and not (after and found_run(place.results, part.name) is None):
        print(f"{part.name}: done before", flush=True)
        return 0
    left = (end - time.monotonic()) / 60
    least = part.least if not place.tiny else min(part.least, 0.2)
    if part.after and found_run(place.results, part.after) is None:
        record |= {"exit": None, "state": f"not begun: {part.after} left no run"}
    elif left < least:
        record |= {"exit": None, "state": f"not begun: {left:.1f} minutes are left, it needs {least}"}
    else:
        most = part.most * (SLOWER if place.device == "cpu" else 1)
        ended = _begun(part, place, state, record, 60 * min(left, most), pack)
        return int(ended != 0)
    print(f"{part.name}: {record['state']}", flush=True)
    summary.write(place.results, state, pack)
    return 0


def _begun(
    part: Slice, place: Place, state: dict[str, Any], record: dict[str, Any], seconds: float, pack: Path | None
) -> int:
    """Run one slice and write down how it ended, before and after."""
    log, out = place.results / f"{part.name}.log", place.results / f"{part.name}.json"
    words = place.words(part)
    out.unlink(missing_ok=True)
    attempts = record.get("attempts", 0) + 1
    record.clear()
    record |= {"name": part.name, "exit": None, "state": "begun", "attempts": attempts, "log": log.name}
    record |= {"command": words}
    summary.write(place.results, state, pack)
    ended = run(words, place.environment, ROOT, out if part.prints_json else log, log, seconds)
    summary.tail(log)
    record |= {"exit": ended.code, "state": "ended", "last": summary.last_line(log), **_measured(ended)}
    _read(part, place, out, log, record)
    summary.write(place.results, state, pack)
    print(f"{part.name}: exit {record['exit']}, {ended.seconds:.0f} s: {record['last'][:100]}", flush=True)
    return record["exit"]


def _measured(ended: Ended) -> dict[str, Any]:
    memory = {"host_mib": round(ended.host_mib), "card_mib": ended.card.mib, "card_mhz": ended.card.mhz}
    return {"seconds": round(ended.seconds, 1), **memory}


def _read(part: Slice, place: Place, out: Path, log: Path, record: dict[str, Any]) -> None:
    """Add the numbers that a slice found; one that found nothing, or ran elsewhere, has not ended well."""
    if part.command[0] == "pytest":
        record["numbers"] = summary.counts(log)
        if record["exit"] == 0 and not record["numbers"].get("passed"):
            record |= {"exit": NO_TESTS, "last": f"no test passed: {record['last']}"}
    if not part.prints_json:
        return
    try:
        record["numbers"] = summary.numbers(json.loads(out.read_bytes()))
    except Exception as error:  # whatever a command printed, the other slices go on; this one has not ended well
        record |= {"exit": record["exit"] or 1, "last": f"no numbers ({type(error).__name__}): {record['last']}"}
        return
    if record["exit"] == 0:
        record["last"] = summary.headline(record["numbers"]) or record["last"]
    where = record["numbers"].get("device")
    if place.device == "cuda" and where == "cpu" and part.name != "bench-init":
        record |= {"exit": record["exit"] or 1, "last": f"ran on the CPU: {record['last']}"}


def _exit_of(state: Mapping[str, Any], name: str) -> int | None:
    return next((record["exit"] for record in state["slices"] if record["name"] == name), None)


def _state(place: Place) -> dict[str, Any]:
    """Return what an earlier call wrote, or a new summary; results of another device or size are not gone on with."""
    how = {"device": place.device, "tiny": place.tiny, "data": place.data}
    file = place.results / "summary.json"
    if not file.exists():
        return {**how, "slices": []}
    state = json.loads(file.read_bytes())
    if differing := [name for name in how if state[name] != how[name]]:
        was = ", ".join(f"{name} {state[name]}" for name in differing)
        raise SystemExit(f"{place.results} holds results with {was}: name another folder")
    return state


def prepared(given: argparse.Namespace) -> Place:
    """Make the folders, install the wheels, and make images where no data set is at hand."""
    results: Path = given.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(results).encode()).hexdigest()[:8]
    work = Path(tempfile.gettempdir()) / f"lottery-on-gpu-{os.getuid()}-{name}"
    (work / "runs").mkdir(parents=True, exist_ok=True)
    environment = _environment(given.device, work)
    sys.path.append(str(work / "site"))
    if given.wheels is not None:
        wheels = sorted(str(path) for path in given.wheels.resolve().glob("*.whl"))
        shutil.rmtree(work / "site", ignore_errors=True)
        options = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target"]
        command = [sys.executable, "-m", "pip", "install", *options, str(work / "site"), *wheels]
        _said("wheels", run(command, environment, ROOT, results / "wheels.log", results / "wheels.log", 120))
    tiny = given.tiny or given.device == "cpu"
    data = given.data or ("fashion-mnist" if INSTALLED.is_dir() and not tiny else "")
    if not data:
        data = str(work / f"images-{'tiny' if tiny else 'many'}.npz")
        if not Path(data).exists():
            command = [sys.executable, str(HERE / "images.py"), data, *(("600", "200") if tiny else ("20000", "4000"))]
            _said("images", run(command, environment, ROOT, results / "images.log", results / "images.log", 120))
    return Place(results, work, given.device, tiny, data, environment)


def _said(what: str, ended: Ended) -> None:
    if ended.code:
        print(f"{what}: exit {ended.code}, see {what}.log", flush=True)


def _environment(device: str, work: Path) -> dict[str, str]:
    """Return the variables of every process: this checkout first, then the wheels; memory shared by two frameworks."""
    path = [str(ROOT), str(work / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if device == "cpu":
        return {**os.environ, **made, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    # The tests' own flags make programs for CPUs quick to compile.
    return {**os.environ, **made, "XLA_FLAGS": ""}


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _listen() -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [part.name for part in SLICES]
    parser = argparse.ArgumentParser(prog="results/on-gpu/run", description=__doc__)
    parser.add_argument("results", type=Path, help="folder for what comes out: small files, no folders")
    parser.add_argument("minutes", type=float, help="how long all of it may take")
    parser.add_argument(
        "wheels", type=Path, nargs="?", default=os.environ.get("WHEELS"), help="folder of *.whl to install"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default=os.environ.get("DEVICE", "cuda"))
    parser.add_argument("--tiny", action="store_true", help="sizes of a rehearsal (always on the CPU)")
    parser.add_argument("--data", help="images of 28×28 pixels: a name or a path (fashion-mnist where Debian has it)")
    parser.add_argument("--pack", type=Path, help="also write all results into this one .tar.gz, after every slice")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="SLICE", help=f"one of {', '.join(names)}; repeatable"
    )
    given = parser.parse_args(arguments)
    given.pack = given.pack and given.pack.resolve()
    if given.data and Path(given.data).exists():
        given.data = str(Path(given.data).resolve())
    if given.device not in ("cuda", "cpu"):  # argparse does not look at a default
        parser.error(f"DEVICE is {given.device!r}: cuda or cpu")
    return given


if __name__ == "__main__":
    sys.exit(main())
