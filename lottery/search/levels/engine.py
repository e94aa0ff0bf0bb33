"""The search: levels, replicates, rewinding. The place where a level is decided.

    rewind weights, mask ─▶ trainer ─▶ trained weights ─▶ criterion ─▶ scores ─▶ select ─▶ next mask

The engine holds parameters as named arrays on the host and never looks inside a trainer. Every level is written to
disk, whole, before anything depends on it; what is already there is read and not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lottery.results.delivery import reported
from lottery.results.levels import Level
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_replicate
from lottery.search.levels.early_bird import asked_when_stable, at_stable_mask, with_answer_in_record
from lottery.search.levels.plan import Plan
from lottery.search.levels.reading import Outcome, store
from lottery.state.tensors import digest
from pruning.errors import BadValue, ConfigMismatch, Diverged
from pruning.jobs import Budget, Job, Params, Stacks, Trained, Trainer
from pruning.mask import Mask


class LevelReport(Protocol):
    """Is told of every level as it begins and as it is finished."""

    def level_started(self, level: int, jobs: Mapping[int, Job]) -> None:
        """These jobs of a level, by replicate seed, will be trained now."""
        ...

    def level_finished(self, level: Level, dense: Level) -> None:
        """All replicates of a level are on disk."""
        ...


@dataclass(frozen=True)
class Replicates:
    """Which seeds a search is about.

    Attributes:
        asked: those that are trained where anything of them is missing.
        groups: all seeds of the run, in the groups that are trained together; each asked one is in one of them.
    """

    asked: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def together(cls, seeds: Sequence[int]) -> Replicates:
        """Return one group that is asked for as a whole."""
        return cls(tuple(seeds), (tuple(seeds),))


def search_levels(
    plan: Plan,
    trainer: Trainer,
    initial: Mapping[int, Params],
    run: RunDirectory,
    report: LevelReport,
    replicates: Replicates | None = None,
) -> tuple[Level, ...]:
    """Run every level that is not on disk yet, and return all of them, or those before the last replicate diverged.

    Args:
        plan: what to do.
        trainer: turns jobs into trained weights.
        initial: initial weights of each replicate, by seed.
        run: where levels are stored.
        report: is told of levels.
        replicates: which seeds; by default those of the configuration, as one group.

    Raises:
        BadValue: the criterion needs what the trainer does not provide.
        ConfigMismatch: a stored replicate began with other weights than it would begin with now.
        Diverged: no dense replicate trained to finite weights.
    """
    criterion = plan.drawing.criterion
    missing = criterion.needs - trainer.provides - plan.drawing.prober.provides
    if missing:
        raise BadValue(
            f"criterion {criterion.name!r} needs {', '.join(sorted(missing))}, "
            f"which trainer {plan.config.trainer!r} does not provide"
        )
    reported(plan.config, trainer)  # what the trainer cannot keep is said before anything is trained
    replicates = replicates or Replicates.together(plan.config.seeds)
    _check_beginnings(run, initial, replicates.asked)
    levels: list[Level] = []
    alive = list(replicates.asked)
    for number in range(len(plan.targets)):
        groups = [_jobs(plan, trainer, initial, run, (alive, group), number) for group in replicates.groups]
        if any(groups):
            report.level_started(number, {seed: job for jobs in groups for seed, job in jobs.items()})
        for jobs in filter(None, groups):
            _train(plan, trainer, initial, run, jobs, number)
        level = Level(number, tuple(read_replicate(run, seed, number) for seed in alive))
        levels.append(level)
        report.level_finished(level, levels[0])
        alive = [replicate.seed for replicate in level.alive]
        if not alive and number == 0:
            reasons = "; ".join(f"seed {r.seed}: {r.diverged}" for r in level.replicates)
            raise Diverged(f"level 0: every replicate diverged ({reasons})")
        if not alive:
            break
    return tuple(levels)


def _train(
    plan: Plan,
    trainer: Trainer,
    initial: Mapping[int, Params],
    run: RunDirectory,
    jobs: Mapping[int, Job],
    number: int,
) -> None:
    """Train the jobs of one group, and store each as it is done."""
    began = time.perf_counter()
    results = trainer.train(list(jobs.values()), wanted(plan, trainer))
    for (seed, job), trained in zip(jobs.items(), results, strict=True):
        now, trained = time.perf_counter(), with_answer_in_record(trained)
        dense = run.read_record(seed, 0) if number else None
        if not run.has(seed, number):
            store(plan, run, Outcome(job, trained, seed, number, digest(initial[seed]), now - began), dense)
        began = now


def _check_beginnings(run: RunDirectory, initial: Mapping[int, Params], seeds: Sequence[int]) -> None:
    """Raise `ConfigMismatch` where a stored replicate began with other weights than its seed gives now."""
    for seed in seeds:
        if run.has(seed, 0) and run.read_record(seed, 0)["init_sha256"] != digest(initial[seed]):
            raise ConfigMismatch(
                f"{run.level_path(seed, 0)} began with other weights than seed {seed} gives now: the model's maker "
                "reads something that has changed, or draws from a generator of its own; start over with force=True "
                "(--force)"
            )


def wanted(plan: Plan, trainer: Trainer) -> frozenset[str]:
    """Return what the trainer is asked for beside the trained weights, in every training of a search."""
    return (plan.drawing.criterion.needs & trainer.provides) | reported(plan.config, trainer)


def job_seed(seed: int, level: int) -> int:
    """Return the seed of one level's training: another data order at each level, the same in every attempt.

    >>> job_seed(0, 1) == job_seed(0, 1), job_seed(0, 1) == job_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, level]).generate_state(1, np.uint32)[0])


def _jobs(
    plan: Plan,
    trainer: Trainer,
    initial: Mapping[int, Params],
    run: RunDirectory,
    seeds: tuple[Sequence[int], Sequence[int]],
    level: int,
) -> dict[int, Job]:
    """Return what is to be trained of a group's level: what is asked for and not on disk, and what shares its stack.

    Args:
        plan: of the search.
        trainer: says whether it would stack the group.
        initial: initial weights by seed.
        run: what is on disk; what an earlier attempt stored is compared with its hashes.
        seeds: that are asked for and did not diverge; and those of the group.
        level: which.
    """
    asked, group = seeds
    for seed in set(asked) & set(group):
        run.check(seed, level)  # nothing goes on from weights that changed since
    absent = [seed for seed in asked if seed in group and not run.has(seed, level)]
    jobs = {seed: _asked(plan, _job(plan, run, initial[seed], seed, level), level) for seed in absent}
    if not jobs or not isinstance(trainer, Stacks):
        return jobs
    alive = [seed for seed in group if seed in asked or not level or _is_alive(run, seed, level - 1)]
    if len(jobs) == len(alive):
        return jobs
    every = {seed: jobs.get(seed) or _job(plan, run, initial[seed], seed, level) for seed in alive}
    if not trainer.together(list(every.values()), wanted(plan, trainer)):
        return jobs
    run.forget_metrics(level, list(every))
    return every


def _is_alive(run: RunDirectory, seed: int, level: int) -> bool:
    return run.has(seed, level) and run.read_record(seed, level)["diverged"] is None


def _job(plan: Plan, run: RunDirectory, initial: Params, seed: int, level: int) -> Job:
    if level == 0:
        return Job(initial, plan.dense[seed], job_seed(seed, 0), plan.rewind.dense_budget(plan.total_steps))
    params = rewind_params(plan, run, initial, seed, level)
    drawn_from = _drawn_from(plan, level)
    finished = Job(
        run.read_rewound(seed, drawn_from) if plan.rewind.to_step is None else params,
        run.read_mask(seed, drawn_from),
        job_seed(seed, drawn_from),
        Budget(0, 0),
    )
    trained = at_stable_mask(run.read_trained(seed, drawn_from), run.read_record(seed, drawn_from))
    mask = plan.drawing.draw(trained, finished, params, plan.targets[level])
    return Job(params, mask, job_seed(seed, level), plan.rewind.budget())


def _asked(plan: Plan, job: Job, level: int) -> Job:
    """Return a level's job, asked when the mask that would be drawn from it is stable where the search wants that."""
    if plan.config.early_bird is None or level + 1 == len(plan.targets):
        return job

    def draw(trained: Trained) -> Mask:
        step = plan.rewind.to_step
        rewound = trained.params if step is None else trained.snapshots.get(step, job.params)
        params = job.params if step is None else rewound
        seen = replace(job, params=params, mask=trained.mask or job.mask)
        return plan.drawing.draw(trained, seen, rewound, plan.targets[level + 1])

    return asked_when_stable(plan.config, job, level, draw)


def rewind_params(plan: Plan, run: RunDirectory, initial: Params, seed: int, level: int) -> Params:
    """Return the weights that a level after the first starts from, before its mask is applied."""
    snapshots = run.read_trained(seed, 0).snapshots if plan.rewind.to_step else {}
    return plan.rewind.params(initial, snapshots, run.read_trained(seed, _drawn_from(plan, level)).params)


def _drawn_from(plan: Plan, level: int) -> int:
    """Return the level whose training a level's mask (and, without rewinding, its weights) come from."""
    return level - 1 if plan.config.draw_from == "previous" else 0
