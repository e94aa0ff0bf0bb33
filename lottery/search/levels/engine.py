"""The search: one level after the other, each of them train ─▶ score ─▶ prune ─▶ rewind.

    rewind weights, mask ─▶ trainer ─▶ trained weights ─▶ criterion ─▶ scores ─▶ select ─▶ next mask
    (`starting`)            (`engine`)  (`storing`)       (`drawing`, when the next level starts)

The engine holds parameters as named arrays on the host and never looks inside a trainer. Every level is written to
disk, whole, before anything depends on it. Which of its jobs are trained at all, after a search was cut off or where
replicates are stacked, is decided in `missing`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from lottery.results.delivery import reported
from lottery.results.levels import Level
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_replicate
from lottery.search.levels.early_bird import with_answer_in_record
from lottery.search.levels.missing import Replicates, check_beginnings, missing, wanted
from lottery.search.levels.plan import SearchPlan, Work
from lottery.search.levels.storing import Outcome, store
from lottery.state.tensors import digest
from pruning.errors import BadValue, Diverged
from pruning.jobs import Job, Params, Trainer


class LevelReport(Protocol):
    """Receives every level when it begins and when it is finished."""

    def level_started(self, level: int, jobs: Mapping[int, Job]) -> None:
        """These jobs of a level, by replicate seed, will be trained now."""
        ...

    def level_finished(self, level: Level, dense: Level) -> None:
        """All replicates of a level are on disk."""
        ...


def search_levels(
    plan: SearchPlan,
    trainer: Trainer,
    initial: Mapping[int, Params],
    run: RunDirectory,
    report: LevelReport,
    replicates: Replicates | None = None,
) -> tuple[Level, ...]:
    """Run every level that is not on disk yet, and return all of them, or those before the last replicate diverged.

    Args:
        plan: the plan of the search.
        trainer: turns jobs into trained weights.
        initial: initial weights of each replicate, by seed.
        run: where levels are stored.
        report: receives each level when it begins and when it is finished.
        replicates: the seeds, in groups; by default those of the configuration, as one group.

    Raises:
        BadValue: the criterion needs what the trainer does not provide.
        ConfigMismatch: a stored replicate began with other weights than it would begin with now.
        Diverged: no dense replicate trained to finite weights.
    """
    work = Work(plan, trainer, initial, run)
    replicates = replicates or Replicates.together(plan.config.seeds)
    _check_trainer(work)
    check_beginnings(work, replicates.asked)
    levels: list[Level] = []
    alive: Sequence[int] = replicates.asked
    for number in range(len(plan.targets)):
        groups = missing(work, replicates, alive, number)
        if groups:
            report.level_started(number, {seed: job for jobs in groups for seed, job in jobs.items()})
        for jobs in groups:
            _train(work, jobs, number)
        level = Level(number, tuple(read_replicate(run, seed, number) for seed in alive))
        levels.append(level)
        report.level_finished(level, levels[0])
        alive = _survivors(level)
        if not alive:
            break
    return tuple(levels)


def _train(work: Work, jobs: Mapping[int, Job], number: int) -> None:
    """Train the jobs of one group, and store each as it is done."""
    run = work.run
    began = time.perf_counter()
    results = work.trainer.train(list(jobs.values()), wanted(work))
    for (seed, job), trained in zip(jobs.items(), results, strict=True):
        now, trained = time.perf_counter(), with_answer_in_record(trained)
        dense = run.read_record(seed, 0) if number else None
        if not run.has(seed, number):
            outcome = Outcome(job, trained, seed, number, digest(work.initial[seed]), now - began)
            store(work.plan.facts, run, outcome, dense)
        began = now


def _survivors(level: Level) -> list[int]:
    """Return the seeds that go on; raises `Diverged` where nothing is left of level 0."""
    alive = [replicate.seed for replicate in level.alive]
    if not alive and level.level == 0:
        reasons = "; ".join(f"seed {replicate.seed}: {replicate.diverged}" for replicate in level.replicates)
        raise Diverged(f"level 0: every replicate diverged ({reasons})")
    return alive


def _check_trainer(work: Work) -> None:
    """Raise `BadValue`, before anything is trained, where the trainer cannot give or keep what the search needs."""
    plan, criterion = work.plan, work.plan.drawing.criterion
    lacking = criterion.needs - work.trainer.provides - plan.drawing.prober.provides
    if lacking:
        raise BadValue(
            f"criterion {criterion.name!r} needs {', '.join(sorted(lacking))}, "
            f"which trainer {plan.config.trainer!r} does not provide"
        )
    reported(plan.config, work.trainer)
