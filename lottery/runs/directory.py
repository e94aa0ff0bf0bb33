"""The run directory: where a search writes, what it already holds, and how an interrupted search is resumed.

runs/<readable>-<hash>/config.json         the resolved configuration, which the hash is of
                       environment.json    versions, hardware, commit
                       metrics.jsonl       every evaluation, appended and flushed as it happens
                       seed-S/level-LL/    one ticket directory each, complete or absent
                       summary.json        what was found
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from lottery.runs.identity import Identity
from lottery.runs.records import check_level
from lottery.runs.ticket_directory import CARD, HISTORY, MASK, RECORD, TicketDirectory, open_ticket, seal_ticket
from lottery.state.behaviour import agree
from pruning.disk.directories import atomic_directory, remove_leftovers
from pruning.disk.files import finite_json, read_bytes, read_json, write_json, write_tensors, write_text
from pruning.errors import BadValue, ConfigMismatch, RunBusy, storage_error
from pruning.jobs import Evaluation, Job, Params, Trained
from pruning.mask import Mask


@dataclass(frozen=True)
class RunDirectory:
    """One search's folder."""

    path: Path

    def level_path(self, seed: int, level: int) -> Path:
        """Return the ticket directory of one replicate's level."""
        return self.path / f"seed-{seed}" / f"level-{level:02d}"

    def has(self, seed: int, level: int) -> bool:
        """Say whether this level is complete."""
        # A link that leads nowhere counts too: to read it is an error, to train over it would be a silent one.
        return os.path.lexists(self.level_path(seed, level) / RECORD)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`; raises `StorageError` where the disk refuses."""
        path = self.path / "metrics.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite_json(row)) + "\n")
        except OSError as error:
            raise storage_error(path, error) from error

    def forget_metrics(self, level: int, seeds: Collection[int]) -> None:
        """Drop the lines of a level's replicates from `metrics.jsonl`: they are trained again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            rows = [(line, json.loads(line)) for line in read_bytes(path).decode("utf-8").splitlines()]
            kept = [line for line, row in rows if row["level"] != level or row["seed"] not in seeds]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def write_level(
        self, job: Job, trained: Trained, record: Mapping[str, Any], readme: str, delivered: Params
    ) -> None:
        """Write one finished level as a ticket directory: all of it, or nothing.

        Args:
            job: the job that was trained.
            trained: the result of the training.
            record: the level's `config.json`.
            readme: the ticket's card.
            delivered: the weights that the record's numbers are of; where they are not those of the last step, these
                are kept beside them.
        """
        seed, level = record["seed"], record["level"]
        with atomic_directory(self.level_path(seed, level)) as folder:
            self._write_rewound(folder / "model.safetensors", seed, level, job.params)
            job.mask.save(folder / MASK)
            if trained.diverged is None:
                write_tensors(folder / "trained.safetensors", delivered, {"format": "pt"})
                if not _same(delivered, trained.params):
                    write_tensors(folder / "last.safetensors", trained.params, {"format": "pt"})
            if trained.std is not None:
                write_tensors(folder / "std.safetensors", trained.std, {})
            if trained.best is not None and delivered is not trained.best:
                write_tensors(folder / "best.safetensors", trained.best, {"format": "pt"})
            for step, params in trained.snapshots.items():
                write_tensors(folder / f"step-{step}.safetensors", params, {"format": "pt"})
            write_json(folder / HISTORY, [dataclasses.asdict(point) for point in trained.history])
            write_text(folder / CARD, readme)
            seal_ticket(folder, record)

    def level(self, seed: int, level: int) -> TicketDirectory:
        """Return a finished level's files, to be read against the hashes in its record.

        Raises:
            FileFormatError: a record that is damaged, or of another level.
        """
        path = self.level_path(seed, level)
        remedy = f"delete {path} and the levels after it, and they are trained again, or start over with --force"
        found = open_ticket(path, remedy)
        check_level(path / RECORD, found.record, seed, level)
        return found

    def check(self, seed: int, level: int) -> None:
        """Compare every file of a level that is there with its hash; raises `FileFormatError` for one that differs."""
        # Only the folder is asked for: a level whose record is gone did not end half-way, it was damaged.
        if self.level_path(seed, level).exists():
            self.level(seed, level).check()

    def read_record(self, seed: int, level: int) -> dict[str, Any]:
        """Return a level's `config.json`."""
        return self.level(seed, level).record

    def read_history(self, seed: int, level: int) -> list[Evaluation]:
        """Return a level's evaluations."""
        return self.level(seed, level).history()

    def read_rewound(self, seed: int, level: int) -> Params:
        """Return the weights at the rewind point that a level started from."""
        return self.level(seed, level).tensors("model")

    def read_mask(self, seed: int, level: int) -> Mask:
        """Return a level's mask."""
        return self.level(seed, level).mask()

    def read_trained(self, seed: int, level: int) -> Trained:
        """Return everything that a level's training gave; its weights are those of the last step."""
        files = self.level(seed, level)
        return Trained(
            params=files.tensors("last" if files.has("last") else "trained"),
            history=files.history(),
            snapshots=files.snapshots(),
            std=files.tensors("std") if files.has("std") else None,
        )

    def read_delivered(self, seed: int, level: int) -> Params:
        """Return the trained weights whose metrics a level reports."""
        return self.level(seed, level).tensors("trained")

    def _write_rewound(self, path: Path, seed: int, level: int, params: Params) -> None:
        """Write the rewind weights, or link to the last level's file where it holds the same bits."""
        previous = self.level_path(seed, level - 1) / "model.safetensors"
        if level > 1 and previous.exists() and _same(self.read_rewound(seed, level - 1), params):
            # A file system without hard links gets a copy.
            with contextlib.suppress(OSError):
                os.link(previous, path)
                return
        write_tensors(path, params, {"format": "pt"})


@contextlib.contextmanager
def open_run(out: Path, name: str, identity: Identity, *, force: bool, resume: bool = False) -> Iterator[RunDirectory]:
    """Give the directory of the run of this experiment, new or as an earlier attempt left it.

    While the block runs, no other process can open the same run. Two experiments whose settings have one hash and that
    behave differently lie beside each other: `name-hash`, `name-hash-2`, …

    Args:
        out: the folder of all runs.
        name: the readable part of the directory's name.
        identity: tells it from other experiments.
        force: start over.
        resume: go on with a stored run though nothing tells whether it is of the same experiment.

    Raises:
        BadValue: `out` cannot be written.
        ConfigMismatch: the directory holds another configuration, or what cannot be told from another experiment.
        RunBusy: another process is working on this run.
    """
    text = json.dumps(finite_json(identity.settings), sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower()
    first = f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    for number in itertools.count(1):
        path = out / (first if number == 1 else f"{first}-{number}")
        with locked(out, path.name):
            if not _is_free_or_same(path, json.loads(text), identity):
                continue
            try:
                if force and path.exists():
                    shutil.rmtree(path)
                path.mkdir(exist_ok=True)
            except OSError as error:
                raise _unwritable(out, error) from error
            run = RunDirectory(path)
            if identity.unsure and not resume and any(path.glob("seed-*/level-*")):
                raise ConfigMismatch(
                    f"{path}: nothing tells whether this stored run is of the same experiment "
                    f"({'; '.join(identity.unsure)}); resume=True or --resume goes on with it, force=True or --force "
                    "starts over"
                )
            if not (path / "config.json").exists():
                described = {"behaviour": finite_json(identity.behaviour), "unsure": list(identity.unsure)}
                write_json(path / "config.json", {**json.loads(text), **described})
            _tidy(run)
            yield run
            return


@contextlib.contextmanager
def locked(out: Path, name: str) -> Iterator[None]:
    """Work on `out/name` alone; raises `RunBusy` where another process does, `BadValue` for an unwritable `out`.

    >>> with locked(tmp, "search"), locked(tmp, "search"):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    pruning.errors.RunBusy: ...search: another process is working on this run
    """
    lock = filelock.FileLock(out / f".{name}.lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise RunBusy(f"{out / name}: another process is working on this run") from error
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(out: Path, error: OSError) -> BadValue:
    return BadValue(f"--out {out}: cannot be written ({error.strerror or error})")


def _is_free_or_same(path: Path, settings: Mapping[str, Any], identity: Identity) -> bool:
    """Say whether a directory is new, or of an experiment that behaves as this one; raises for other settings."""
    if not (path / "config.json").exists():
        return True
    stored = read_json(path / "config.json")
    described = {key: stored.pop(key, None) for key in ("behaviour", "unsure")} if isinstance(stored, dict) else {}
    if stored != settings:
        raise ConfigMismatch(f"{path} was made by another configuration; use --force to start over, or another --out")
    return agree(described.get("behaviour") or {}, identity.behaviour)


def _tidy(run: RunDirectory) -> None:
    """Drop what an interrupted attempt left half done: temporary files, and metrics of levels that will be redone."""
    # Of the search itself, which no other process works on. Outer folders first: with them go the files in them.
    for leftover in sorted([*run.path.glob(".*.tmp"), *run.path.glob("seed-*/**/.*.tmp")]):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)
    # Of controls and copies, which may be in training right now.
    remove_leftovers(path for path in run.path.glob("*/**/.*.tmp") if path.is_dir())
    path = run.path / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in read_bytes(path).decode("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if run.has(row["seed"], row["level"]):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written when the process died
    write_text(path, "".join(f"{line}\n" for line in kept))


def _same(a: Params, b: Params) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name], equal_nan=False) for name in a
    )
