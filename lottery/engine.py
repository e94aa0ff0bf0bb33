"""The search: levels, replicates, rewinding. The place where a level is decided.

    rewind weights, mask ─▶ trainer ─▶ trained weights ─▶ criterion ─▶ scores ─▶ select ─▶ next mask

The engine holds parameters as named arrays on the host and never looks inside a trainer. Every level is written to
disk, whole, before anything depends on it; what is already there is read and not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lottery.card import card
from lottery.config import SearchConfig
from lottery.drawing import Drawing
from lottery.early_bird import drawable, told, watched
from lottery.results import EarlyStop, Level, Replicate
from lottery.rewind import Rewind
from lottery.run_directory import RunDirectory
from lottery.torch_state import digest
from lottery.winning import early_stop
from pruning.errors import BadValue, ConfigMismatch, Diverged
from pruning.jobs import Budget, Job, Params, Stacks, Trained, Trainer
from pruning.ladder import Target
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
class Plan:
    """Everything that decides a search, resolved.

    Attributes:
        config: the search's configuration.
        drawing: how masks are drawn.
        targets: how many weights each level keeps, level 0 first.
        dense: the mask of level 0, by replicate seed.
        rewind: where survivors go back to.
        total_steps: steps of a whole training.
        about: facts that every ticket records: model, data, trainer, metric, framework, layout, settings.
    """

    config: SearchConfig
    drawing: Drawing
    targets: Sequence[Target]
    dense: Mapping[int, Mask]
    rewind: Rewind
    total_steps: int
    about: Mapping[str, Any]


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
    needs = plan.drawing.criterion.needs & trainer.provides
    began = time.perf_counter()
    for (seed, job), trained in zip(jobs.items(), trainer.train(list(jobs.values()), needs), strict=True):
        now, trained = time.perf_counter(), told(trained, job)
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
    jobs = {seed: _watched(plan, _job(plan, run, initial[seed], seed, level), level) for seed in absent}
    if not jobs or not isinstance(trainer, Stacks):
        return jobs
    alive = [seed for seed in group if seed in asked or not level or _is_alive(run, seed, level - 1)]
    if len(jobs) == len(alive):
        return jobs
    every = {seed: jobs.get(seed) or _job(plan, run, initial[seed], seed, level) for seed in alive}
    if not trainer.together(list(every.values()), plan.drawing.criterion.needs & trainer.provides):
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
    trained = drawable(run.read_trained(seed, drawn_from), run.read_record(seed, drawn_from))
    mask = plan.drawing.draw(trained, finished, params, plan.targets[level])
    return Job(params, mask, job_seed(seed, level), plan.rewind.budget())


def _watched(plan: Plan, job: Job, level: int) -> Job:
    """Return a level's job, with an eye on the masks that would be drawn from it where the search asks for that."""
    if plan.config.early_bird is None or level + 1 == len(plan.targets):
        return job

    def draw(trained: Trained) -> Mask:
        step = plan.rewind.to_step
        rewound = trained.params if step is None else trained.snapshots.get(step, job.params)
        params = job.params if step is None else rewound
        seen = replace(job, params=params, mask=trained.mask or job.mask)
        return plan.drawing.draw(trained, seen, rewound, plan.targets[level + 1])

    return watched(plan.config, job, level, draw)


def rewind_params(plan: Plan, run: RunDirectory, initial: Params, seed: int, level: int) -> Params:
    """Return the weights that a level after the first starts from, before its mask is applied."""
    snapshots = run.read_trained(seed, 0).snapshots if plan.rewind.to_step else {}
    return plan.rewind.params(initial, snapshots, run.read_trained(seed, _drawn_from(plan, level)).params)


def _drawn_from(plan: Plan, level: int) -> int:
    """Return the level whose training a level's mask (and, without rewinding, its weights) come from."""
    return level - 1 if plan.config.draw_from == "previous" else 0


@dataclass(frozen=True)
class Outcome:
    """One training of a search or of a control, and which it was.

    Attributes:
        job: what was trained.
        trained: what came out.
        seed: of the replicate.
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
    plan: Plan,
    run: RunDirectory,
    outcome: Outcome,
    dense: Mapping[str, Any] | None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write one training as a ticket directory.

    Args:
        plan: of the search.
        run: where to.
        outcome: the training.
        dense: the record of the same replicate's dense level, or None for that level itself.
        facts: what else the record says.
    """
    job, trained, seed, level = outcome.job, outcome.trained, outcome.seed, outcome.level
    mask = (trained.mask or job.mask).with_metadata(
        criterion=plan.config.criterion,
        scope=plan.config.scope,
        level=level,
        seed=seed,
        framework=plan.about["framework"],
        layout=plan.about["layout"],
        init_sha256=outcome.init_sha256,
    )
    last = trained.history[-1] if trained.history else None
    stopped = early_stop(trained.history)
    final = (last.validation, last.test) if last else (None, None)
    early = (stopped.validation, stopped.test) if stopped else (None, None)
    validation, test = early if plan.config.measure_at == "early-stop" else final
    record = {
        "format": 1,
        "kind": "lottery-ticket",
        "seed": seed,
        "level": level,
        "density": mask.density,
        "sparsity": mask.sparsity,
        "kept": mask.kept,
        "prunable": mask.total,
        "layers": {row.name: row.density for row in mask.layers()},
        "validation": validation,
        "test": test,
        "final": {"validation": final[0], "test": final[1]},
        "early_stop": vars(stopped) if stopped else None,
        "dense": {key: dense[key] for key in ("validation", "test")} if dense else None,
        "steps": last.step - job.budget.start if last else 0,
        "diverged": trained.diverged,
        "seconds": outcome.seconds,
        "init_sha256": outcome.init_sha256,
        **plan.about,
        **trained.facts,
        **(facts or {}),
    }
    run.write_level(replace(job, mask=mask), trained, record, card(record))


def read_replicate(run: RunDirectory, seed: int, level: int) -> Replicate:
    """Return one replicate of a level, as it lies on disk."""
    record = run.read_record(seed, level)
    nan = float("nan")

    def number(value: float | None) -> float:
        return nan if value is None else value

    return Replicate(
        seed=seed,
        level=level,
        validation=number(record["validation"]),
        test=record["test"],
        steps=record["steps"],
        final_validation=number(record["final"]["validation"]),
        final_test=record["final"]["test"],
        early_stop=EarlyStop(**record["early_stop"]) if record["early_stop"] else None,
        diverged=record["diverged"],
        kept=record["kept"],
        prunable=record["prunable"],
        layers=record["layers"],
        path=run.level_path(seed, level),
        history=run.read_history(seed, level),
    )


def run_seconds(run: RunDirectory, levels: Sequence[Level]) -> float:
    """Return the training time of all levels, each by the attempt that finished it."""
    return sum(run.read_record(r.seed, level.level)["seconds"] for level in levels for r in level.replicates)
