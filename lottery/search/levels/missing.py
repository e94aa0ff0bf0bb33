"""Which jobs of a level are still to be trained: after an interruption, and where replicates are stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lottery.results.delivery import reported
from lottery.runs.directory import RunDirectory
from lottery.search.levels.plan import Work
from lottery.search.levels.starting import asked_start, start
from lottery.state.tensors import digest
from pruning.errors import ConfigMismatch
from pruning.jobs import Job, Stacks


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
        """Return one group that is asked for as a whole.

        >>> Replicates.together([3, 4]).groups
        ((3, 4),)
        """
        return cls(tuple(seeds), (tuple(seeds),))


def missing(work: Work, replicates: Replicates, alive: Sequence[int], level: int) -> list[Mapping[int, Job]]:
    """Return the jobs of a level that are asked for and not on disk, group by group.

    The bits of a stack depend on all that is in it: where the trainer stacks a group, all of it is trained again.

    Args:
        work: the search; what an earlier attempt stored is compared with its hashes.
        replicates: the seeds, in groups.
        alive: those of them that did not diverge before.
        level: the level's number.
    """
    groups = (_of_group(work, (alive, group), level) for group in replicates.groups)
    return [jobs for jobs in groups if jobs]


def check_beginnings(work: Work, seeds: Sequence[int]) -> None:
    """Raise `ConfigMismatch` where a stored replicate began with other weights than its seed gives now."""
    run = work.run
    for seed in seeds:
        if run.has(seed, 0) and run.read_record(seed, 0)["init_sha256"] != digest(work.initial[seed]):
            raise ConfigMismatch(
                f"{run.level_path(seed, 0)} began with other weights than seed {seed} gives now: the model's maker "
                "reads something that has changed, or draws from a generator of its own; start over with force=True "
                "(--force)"
            )


def wanted(work: Work) -> frozenset[str]:
    """Return what every training of a search must give beside the trained weights."""
    trainer = work.trainer
    return (work.plan.drawing.criterion.needs & trainer.provides) | reported(work.plan.config, trainer)


def _of_group(work: Work, seeds: tuple[Sequence[int], Sequence[int]], level: int) -> Mapping[int, Job]:
    (asked, group), run, trainer = seeds, work.run, work.trainer
    for seed in set(asked) & set(group):
        run.check(seed, level)  # nothing goes on from weights that changed since
    absent = [seed for seed in asked if seed in group and not run.has(seed, level)]
    jobs = {seed: asked_start(work, seed, level) for seed in absent}
    if not jobs or not isinstance(trainer, Stacks):
        return jobs
    alive = [seed for seed in group if seed in asked or not level or _is_alive(run, seed, level - 1)]
    if len(jobs) == len(alive):
        return jobs
    every = {seed: jobs.get(seed) or start(work, seed, level) for seed in alive}
    if not trainer.together(list(every.values()), wanted(work)):
        return jobs
    run.forget_metrics(level, list(every))
    return every


def _is_alive(run: RunDirectory, seed: int, level: int) -> bool:
    return run.has(seed, level) and run.read_record(seed, level)["diverged"] is None
