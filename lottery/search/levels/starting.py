"""Where a level starts: at the weights of the rewind point, under a mask drawn from an earlier training."""

from __future__ import annotations

from dataclasses import replace

from lottery.search.frame.seeds import data_seed, job_seed, mask_seed, weights_seed
from lottery.search.levels.early_bird import asked_when_stable, at_stable_mask
from lottery.search.levels.plan import Work
from pruning.jobs import Budget, Job, Params, Trained
from pruning.mask import Mask


def start(work: Work, seed: int, level: int) -> Job:
    """Return one replicate's training of a level.

    Args:
        work: the search, whose run holds the levels before; each training that is needed is read once.
        seed: the seed of the replicate.
        level: the level's number.
    """
    plan, run, config = work.plan, work.run, work.plan.config
    own_seed = job_seed(data_seed(config, seed), level)
    if level == 0:
        budget = plan.rewind.dense_budget(plan.total_steps)
        return Job(work.initial[seed], plan.dense[seed], own_seed, budget)
    before = level - 1 if config.draw_from == "previous" else 0
    trained = run.read_trained(seed, before)
    params = _rewound(work, seed, trained, before)
    finished = Job(
        run.read_rewound(seed, before) if plan.rewind.to_step is None else params,
        run.read_mask(seed, before),
        job_seed(mask_seed(config, seed), before),
        Budget(0, 0),
    )
    scored = at_stable_mask(trained, run.read_record(seed, before))
    mask = plan.drawing.draw(scored, finished, params, plan.targets[level])
    params, mask = plan.beginning.under(weights_seed(config, seed), mask, params)
    return Job(params, mask, own_seed, plan.rewind.budget())


def asked_start(work: Work, seed: int, level: int) -> Job:
    """Return the same, asked when the mask that would be drawn from it is stable where the search wants that."""
    job, plan = start(work, seed, level), work.plan
    if plan.config.early_bird is None or level + 1 == len(plan.targets):
        return job

    def draw(trained: Trained) -> Mask:
        step = plan.rewind.to_step
        rewound = trained.params if step is None else trained.snapshots.get(step, job.params)
        params = job.params if step is None else rewound
        chance = job_seed(mask_seed(plan.config, seed), level)
        seen = replace(job, params=params, mask=trained.mask or job.mask, seed=chance)
        return plan.drawing.draw(trained, seen, rewound, plan.targets[level + 1])

    return asked_when_stable(plan.config, job, level, draw)


def _rewound(work: Work, seed: int, trained: Trained, before: int) -> Params:
    """Return the weights at the rewind point, before the next mask is applied.

    Args:
        work: the search, whose dense training holds the weights at step k.
        seed: the seed of the replicate.
        trained: the training that the next mask is drawn from.
        before: its level.
    """
    rewind, initial = work.plan.rewind, work.initial[seed]
    snapshots = trained.snapshots
    if rewind.to_step and before:
        snapshots = work.run.level(seed, 0).snapshots()
    return rewind.params(initial, snapshots, trained.params)
