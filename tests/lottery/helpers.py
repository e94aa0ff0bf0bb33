"""Small stand-ins that several tests share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery.results.levels import Search
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.runs.ticket_directory import RECORD, sealed
from lottery.search.levels.progress import Display
from lottery.search.preparing.preparing import Request
from lottery.search.running import run_search
from pruning.disk.files import read_json, write_json
from pruning.jobs import Evaluation, Job, Trained
from pruning.mask import Mask


def blobs(
    n: int = 96, features: int = 6, classes: int = 3, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Three Gaussian blobs that any small network separates."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y = np.arange(n) % classes
    x = 3 * np.eye(classes, features)[y] + rng.standard_normal((n, features))
    return x.astype(np.float32), y


def tiny_model(seed: int = 0) -> nn.Module:
    """6-8-3 with batch norm and dropout; its callers seed it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


@dataclass
class FakeTrainer:
    """Adds noise to the survivors instead of training; records its jobs."""

    accuracy: dict[int, float] = field(default_factory=dict)
    diverging: frozenset[int] = frozenset()
    jobs: list[Job] = field(default_factory=list)
    provides: frozenset[str] = frozenset()

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        for job in jobs:
            self.jobs.append(job)
            rng = np.random.Generator(np.random.PCG64(job.seed))
            params = job.mask.apply(
                {n: p + rng.standard_normal(p.shape).astype(p.dtype) for n, p in job.params.items()}
            )
            value = self.accuracy.get(job.mask.kept, 0.9)
            history = [Evaluation(job.budget.stop, 0.1, 0.1, value, 0.1, value)]
            snapshots = {step: {n: p + step for n, p in job.params.items()} for step in job.budget.snapshots}
            failed = "the loss is not finite" if len(self.jobs) - 1 in self.diverging else None
            yield Trained(params, history, snapshots, diverged=failed)


def rewrite_record(folder: Path, **entries: Any) -> None:
    """Change a ticket's record as its writer would have written it: with hashes that are right."""
    record = read_json(folder / RECORD)
    write_json(folder / RECORD, sealed({**record, **entries}, record["files"]))


def as_an_earlier_version_wrote_it(folder: Path) -> None:
    """Take the hashes out of a ticket's record."""
    record = read_json(folder / RECORD)
    write_json(folder / RECORD, {key: value for key, value in record.items() if key not in ("files", "record_sha256")})


class Quiet:
    """A report that looks away."""

    def level_started(self, level: int, jobs: Any) -> None:
        """Do nothing."""

    def level_finished(self, level: Any, dense: Any) -> None:
        """Do nothing."""


def assert_same_arrays(a: Any, b: Any) -> None:
    """Two mappings of arrays hold the same bits."""
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


def assert_promises(run: RunDirectory, seed: int, level: int, target: Any, points: Mapping[str, Any]) -> None:
    """One level keeps what every search promises; the numbers are those of the design's list of invariants.

    Args:
        run: where it lies.
        seed: of the replicate.
        level: its number.
        target: how many weights it keeps, in all or for each tensor.
        points: where its survivors must have started, or nothing for level 0.
    """
    mask, start, trained = run.read_mask(seed, level), run.read_rewound(seed, level), run.read_trained(seed, level)
    # 1: exactly as many weights as the schedule says
    assert (mask.counts() if isinstance(target, Mapping) else mask.kept) == target
    # 2: what died stays dead
    assert level == 0 or mask.issubset(run.read_mask(seed, level - 1))
    # 3: removed weights are exactly 0 after momentum, Adam, weight decay, or any number of generations
    assert (removed(mask, trained.params) == 0).all()
    # 5: no tensor is emptied
    assert min(mask.counts().values()) >= 1
    # every survivor moved, positive or negative (regression: a gradient mask without abs froze negative weights)
    moved = np.concatenate([(trained.params[n] != start[n])[keep] for n, keep in mask.items()])
    assert moved.mean() > 0.9
    # 4: survivors start bit-equal to the rewind point, buffers included
    if level:
        assert_same_arrays(start, points)


def search(out: Any, model: Any, data: Any, **settings: Any) -> Search:
    """A short search in a folder of its own; by gradient descent unless the settings say otherwise."""
    budget = {"generations": 4, "population": 4} if settings.get("trainer") == "es" else {"steps": 20}
    request = Request(Given(model, data), {"levels": 1, **budget, **settings}, out=Path(out))
    return run_search(request, Display(False, None))


def removed(mask: Mask, params: Any) -> np.ndarray[Any, Any]:
    """All weights that the mask removes, flat."""
    return np.concatenate([params[name][~keep] for name, keep in mask.items()])


def shown(value: Any) -> str:
    """Return the name of a case: the same in every process of a test run, for functions too."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
