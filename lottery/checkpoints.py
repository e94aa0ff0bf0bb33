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

from lottery.torch_state import digest
from pruning.errors import FileFormatError
from pruning.files import finite, read_tensors, write_tensors
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
    write_tensors(path, arrays, {"jobs": json.dumps(names), "facts": json.dumps(finite(list(facts)))})


def read_checkpoint(folder: Path, jobs: Sequence[Job]) -> tuple[Arrays, list[Mapping[str, Any]]] | None:
    """Return the rows that belong to these jobs, or None where no checkpoint holds all of them.

    Raises:
        FileFormatError: a checkpoint that cannot be read.
    """
    names = [_identity(job) for job in jobs]
    for path in sorted(folder.glob(_PATTERN)):
        arrays, header = read_tensors(path)
        try:
            kept, facts = json.loads(header["jobs"]), json.loads(header["facts"])
        except (KeyError, ValueError) as error:
            raise FileFormatError(f"{path}: not a checkpoint; delete it to train its level anew") from error
        if set(names) <= set(kept):
            rows = [kept.index(name) for name in names]
            return {name: array[rows] for name, array in arrays.items()}, [facts[row] for row in rows]
    return None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint of a run."""
    for path in folder.glob(_PATTERN):
        path.unlink()


def _identity(job: Job) -> str:
    return hashlib.sha256(f"{digest(job.params)} {digest(job.mask)} {job.seed} {job.budget}".encode()).hexdigest()
