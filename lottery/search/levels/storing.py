"""Levels on disk: one training written as a ticket directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lottery.results.card import card
from lottery.results.delivery import report
from lottery.runs.directory import RunDirectory
from lottery.search.frame.facts import Facts
from pruning.jobs import Job, Trained
from pruning.mask import Mask


@dataclass(frozen=True)
class Outcome:
    """One training of a search or of a control, and which it was.

    Attributes:
        job: the job that was trained.
        trained: the result of the training.
        seed: the seed of the replicate.
        level: its level.
        init_sha256: hash of the initialization that its replicate began with.
        seconds: that it took.
    """

    job: Job
    trained: Trained
    seed: int
    level: int
    init_sha256: str
    seconds: float


def store(
    facts: Facts,
    run: RunDirectory,
    outcome: Outcome,
    dense: Mapping[str, Any] | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write one training as a ticket directory.

    Args:
        facts: the facts that every ticket of the search records.
        run: the run directory to write to.
        outcome: the training.
        dense: the record of the same replicate's dense level, or None for that level itself.
        more: further entries of the record.
    """
    job, seed, level = outcome.job, outcome.seed, outcome.level
    found = report(outcome.trained, facts.measure_at)
    trained = found.trained
    mask = described(facts, trained.mask or job.mask, seed, level, outcome.init_sha256)
    record = {
        **of_mask(mask, seed, level),
        "validation": found.validation,
        "test": found.test,
        "delivered": found.delivered,
        "final": found.final,
        "early_stop": vars(found.early_stop) if found.early_stop else None,
        "dense": {key: dense[key] for key in ("validation", "test")} if dense else None,
        "steps": trained.history[-1].step - job.budget.start if trained.history else 0,
        "diverged": trained.diverged,
        "seconds": outcome.seconds,
        "init_sha256": outcome.init_sha256,
        **facts.as_json(),
        **trained.facts,
        **(more or {}),
    }
    run.write_level(replace(job, mask=mask), trained, record, card(record), found.weights)


def described(facts: Facts, mask: Mask, seed: int, level: int, init_sha256: str) -> Mask:
    """Return a mask with what its file says of it."""
    return mask.with_metadata(
        criterion=facts.criterion,
        scope=facts.scope,
        level=level,
        seed=seed,
        framework=facts.framework,
        layout=facts.layout,
        init_sha256=init_sha256,
    )


def of_mask(mask: Mask, seed: int, level: int) -> dict[str, Any]:
    """Return the entries of a ticket's record that its mask decides.

    >>> of_mask(Mask({"w": [[1, 0]]}), 0, 1)["layers"]
    {'w': 0.5}
    """
    return {
        "format": 1,
        "kind": "lottery-ticket",
        "seed": seed,
        "level": level,
        "density": mask.density,
        "sparsity": mask.sparsity,
        "kept": mask.kept,
        "prunable": mask.total,
        "layers": {row.name: row.density for row in mask.layers()},
    }
