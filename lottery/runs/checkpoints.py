"""Checkpoints of levels that are still being trained: one file for the jobs that are trained together.

A checkpoint belongs to exactly the jobs that it was made for (their weights, masks, seeds and budgets): any other is
left alone. It goes when its level is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lottery.state.tensors import digest
from pruning.disk.files import finite_json, read_tensors, write_tensors
from pruning.errors import FileFormatError
from pruning.jobs import Job
from pruning.watch import Arrays

_PATTERN = "checkpoint-*.safetensors"


def write_checkpoint(folder: Path, jobs: Sequence[Job], arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> None:
    """Write a checkpoint, atomically, in the place of an earlier one of the same jobs.

    Args:
        folder: the run directory.
        jobs: that are trained together.
        arrays: the state, with one row for each job.
        facts: JSON for each job.
    """
    names = [_identity(job) for job in jobs]
    path = folder / f"checkpoint-{hashlib.sha256(''.join(names).encode()).hexdigest()[:16]}.safetensors"
    header = {"jobs": json.dumps(names), "facts": json.dumps(finite_json(list(facts)))}
    write_tensors(path, arrays, {**header, "sha256": _hash(arrays, header)})


def read_checkpoint(folder: Path, jobs: Sequence[Job]) -> tuple[Arrays, list[Mapping[str, Any]]] | None:
    """Return the rows that belong to these jobs, or None where no checkpoint holds all of them.

    Raises:
        FileFormatError: a checkpoint that cannot be read.
    """
    names = [_identity(job) for job in jobs]
    for path in sorted(folder.glob(_PATTERN)):
        kept, facts, arrays = _read(path)
        if set(names) <= set(kept):
            rows = [kept.index(name) for name in names]
            return {name: array[rows] for name, array in arrays.items()}, [facts[row] for row in rows]
    return None


def has_checkpoint(folder: Path) -> bool:
    """Say whether a run holds a checkpoint of a level that was interrupted.

    >>> has_checkpoint(tmp)
    False
    """
    return any(folder.glob(_PATTERN))


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint of a run."""
    for path in folder.glob(_PATTERN):
        path.unlink()


def _read(path: Path) -> tuple[list[str], list[Mapping[str, Any]], Arrays]:
    """Return the jobs, the facts and the arrays of a checkpoint that is as it was written."""
    try:
        arrays, header = read_tensors(path)
        if _hash(arrays, header) != header["sha256"]:
            raise FileFormatError(f"{path}: not what was written (its hash differs)")
        return json.loads(header["jobs"]), json.loads(header["facts"]), arrays
    except (KeyError, ValueError) as error:  # a checkpoint of an earlier version has no hash
        reason = error if isinstance(error, FileFormatError) else f"{path}: not a checkpoint of this version"
        raise FileFormatError(f"{reason}; delete it to train its level anew") from error


def _hash(arrays: Arrays, header: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{digest(arrays)} {header['jobs']} {header['facts']}".encode()).hexdigest()


def _identity(job: Job) -> str:
    return hashlib.sha256(f"{digest(job.params)} {digest(job.mask)} {job.seed} {job.budget}".encode()).hexdigest()
