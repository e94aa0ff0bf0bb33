"""Gradient descent on several jobs at once."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lottery.data.parts import Part, Tensors
from lottery.state.tensors import State
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.loop.course import course_of
from lottery.trainers.gd.loop.history import History
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.loop.snapshots import Snapshots
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.optimizers.named import make_optimizer
from lottery.trainers.gd.optimizers.rates import rates_for
from lottery.trainers.gd.stack import Stack, stack_of
from lottery.trainers.gd.stackable import FULL_FLOPS, batch_flops, can_stack, gains, refusal
from lottery.trainers.gd.stacks.batches import StackedBatches
from lottery.trainers.gd.stacks.evaluations import Evaluations
from lottery.trainers.gd.stacks.layers import stacking
from lottery.trainers.gd.stacks.masks import stacked_masks
from lottery.trainers.gd.stacks.memory import (
    EVALUATED,
    evaluated_at_once,
    footprint,
    memory_limit,
    most_networks,
)
from lottery.trainers.gd.stacks.plain_state import plain_state
from lottery.trainers.gd.stacks.program import Program, Recorder
from lottery.trainers.gd.stacks.rates import device_rates
from lottery.trainers.gd.stacks.recording import recorder_for
from lottery.trainers.gd.stacks.step import StackStep
from pruning.jobs import BEST, Evaluation, Job, Trained, stays_finite


def groups_of(trainer: GDFrame, jobs: Sequence[Job], needs: frozenset[str]) -> list[Sequence[Job]]:
    """Return the jobs in their order, in groups: those of more than one are trained stacked.

    A function of the jobs, the configuration and the kind of device alone, so that a search that goes on trains the
    groups that it trained before.
    """
    groups: list[Sequence[Job]] = []
    for _, alike in itertools.groupby(jobs, key=lambda job: job.budget):
        same = list(alike)
        most = _most(trainer, same, needs)
        pieces = math.ceil(len(same) / most)
        bounds = [len(same) * piece // pieces for piece in range(pieces + 1)]
        groups += [same[first:last] for first, last in itertools.pairwise(bounds)]
    return groups


def _most(trainer: GDFrame, jobs: Sequence[Job], needs: frozenset[str]) -> int:
    """Return how many of these jobs are trained together at most; where it would gain and cannot be, say why."""
    config, parts, device = trainer.config, trainer.parts, trainer.device
    why = can_stack(trainer.model, config, parts, jobs, needs)
    if len(jobs) < 2 or not (isinstance(parts.train, Tensors) and parts.train.is_pair):
        return 1
    model = network_for(trainer.model, jobs[0], config.train_only, device).model
    flops = batch_flops(model, parts, config.batch_size)
    if flops is None or not gains(flops, len(jobs), device):
        return 1
    why = why or refusal(trainer.model, config, parts, trainer.objective, jobs, device)
    if why is not None:
        trainer.tell(f"networks are trained one after the other, not stacked: {why}")
        return 1
    limit = memory_limit(config, device)
    fitting = most_networks(footprint(model, config, parts, jobs[0], device), limit) if math.isfinite(limit) else limit
    return int(min(fitting, max(2, int(FULL_FLOPS[device.type] / max(1.0, flops)))))


def train_stacked(trainer: GDFrame, jobs: Sequence[Job], needs: frozenset[str] = frozenset()) -> list[Trained]:
    """Train jobs of one budget in one loop; each gets what it would get alone, up to rounding.

    On CUDA a step is one graph that is launched as a whole, and so is an evaluation.

    Args:
        trainer: how to train; `can_stack` and `refusal` have nothing against these jobs.
        jobs: of one budget.
        needs: `best`, or nothing.
    """
    with stacking(trainer.device):
        stack = stack_of(trainer.model, jobs, trainer.config.train_only, trainer.device)
        dtypes = {tensor.dtype for tensor in stack.trained.values()}
        return _trained(trainer, jobs, needs, stack, recorder_for(trainer.device, dtypes))


def _trained(
    trainer: GDFrame, jobs: Sequence[Job], needs: frozenset[str], stack: Stack, recorder: Recorder | None
) -> list[Trained]:
    config, part, budget = trainer.config, trainer.parts.train, jobs[0].budget
    assert isinstance(part, Tensors)
    # The same for every job: by a rule they would follow its mask, and it is trained alone.
    factors = trainer.factors.under(jobs[0].mask)
    by_place = {str(place): factors.get(name, 1.0) for place, name in enumerate(stack.trained)} if factors else {}
    optimizer = make_optimizer(nn.ParameterList(stack.trained.values()), config, by_place)
    rates = rates_for(Optimizers((optimizer,), ours=True), config, budget.start, trainer.total_steps)
    on_device = device_rates(optimizer, trainer.device) if recorder is not None else None
    course = course_of(budget, config, trainer.total_steps)
    step_of = StackStep(
        stack,
        StackedBatches(part, config.batch_size, [job.seed for job in jobs], budget.stop),
        trainer.objective.loss,
        stacked_masks(stack.trained, jobs),
        optimizer,
        config.clip_norm,
        torch.zeros(len(jobs), device=trainer.device, dtype=next(iter(stack.trained.values())).dtype),
    )
    held = (stack.model, trainer.objective.loss)
    program = Program(
        f"a step of {len(jobs)} stacked networks",
        step_of.take,
        step_of.state,
        recorder,
        trainer.tell,
        lambda: plain_state(*held),
    )
    looks = _looks(trainer, stack, jobs[0], recorder)
    rows = [_row(index, job, stack, needs) for index, job in enumerate(jobs)]
    evaluated = budget.start
    for step in range(budget.start + 1, budget.stop + 1):
        rates.before(step - 1)
        if on_device is not None:
            on_device.hold()
        step_of.batches.before(step - 1)
        program.run()
        going = _going(rows)
        for row in going:
            row.stepped(stack, step)
        if course.evaluates(step):
            means = [total / (step - evaluated) for total in step_of.losses.tolist()]
            step_of.losses.zero_()
            evaluated = step
            _evaluate(trainer, stack, going, looks, step, means)
            going = _going(rows)
            if not going:
                break
        for row in going:
            trainer.watch.stepped(row.job, step)
    return [row.result(stack, factors) for row in rows]


@dataclass
class _Row:
    """The results of one job of a stack so far.

    Attributes:
        index: the index of the job in the stack.
        job: the job to train.
        snapshots: weights at the steps that its budget names.
        history: its evaluations.
        diverged: what is returned of it where it failed.
    """

    index: int
    job: Job
    snapshots: Snapshots
    history: History
    diverged: Trained | None = None

    def stepped(self, stack: Stack, step: int) -> None:
        self.snapshots.stepped(step, lambda: self.network(stack))

    def fail(self, stack: Stack, reason: str) -> Trained:
        # The row goes on in the stack, where its NaN reach no other; nobody looks at it again.
        self.diverged = Trained(stack.network(self.index), self.history.points, diverged=reason)
        return self.diverged

    def result(self, stack: Stack, factors: Mapping[str, float]) -> Trained:
        if self.diverged is not None:
            return self.diverged
        params = self.network(stack)
        if not stays_finite(params, self.job.params):
            return self.fail(stack, f"the weights are not finite at step {self.job.budget.stop}")
        facts = {"lr_factors": factors} if factors else {}
        return Trained(params, self.history.points, self.snapshots.kept, best=self.history.best_params, facts=facts)

    def network(self, stack: Stack) -> State:
        return {name: value for name, value in stack.network(self.index).items() if name in self.job.params}


def _row(index: int, job: Job, stack: Stack, needs: frozenset[str]) -> _Row:
    row = _Row(index, job, Snapshots(job.budget.snapshots), History(Best() if BEST in needs else None))
    row.stepped(stack, job.budget.start)
    return row


def _going(rows: Sequence[_Row]) -> list[_Row]:
    return [row for row in rows if row.diverged is None]


@dataclass(frozen=True)
class _Looks:
    """How the networks of a stack are measured on either part."""

    validation: Evaluations
    test: Evaluations | None


def _looks(trainer: GDFrame, stack: Stack, job: Job, recorder: Recorder | None) -> _Looks:
    config, parts, device = trainer.config, trainer.parts, trainer.device
    # As many examples at once as when trained alone: sums in another order round differently.
    size = at_once = EVALUATED * config.batch_size
    if recorder is not None:
        model = network_for(trainer.model, job, config.train_only, device).model
        one = footprint(model, config, parts, job, device)
        at_once = evaluated_at_once(one, len(stack), memory_limit(config, device))

    def look(part: Part | None) -> Evaluations | None:
        if not isinstance(part, Tensors):
            return None
        return Evaluations(stack, part, trainer.objective, size, at_once, recorder, trainer.tell)

    validation = look(parts.validation)
    assert validation is not None
    return _Looks(validation, look(parts.test))


def _evaluate(
    trainer: GDFrame, stack: Stack, rows: Sequence[_Row], looks: _Looks, step: int, train_losses: Sequence[float]
) -> None:
    """Add a point to the history of every row that is still going, and end those whose loss is not finite."""
    numbers = [row.index for row in rows]
    validation = looks.validation.measured(numbers)
    test = looks.test.measured(numbers) if looks.test is not None else None
    for place, row in enumerate(rows):
        train_loss, (validation_loss, validation_metric) = train_losses[row.index], validation[place]
        test_loss, test_metric = test[place] if test is not None else (None, None)
        point = Evaluation(step, train_loss, validation_loss, validation_metric, test_loss, test_metric)
        row.history.add(point, functools.partial(row.network, stack))
        trainer.watch.evaluated(row.job, point)
        if row.history.failed is not None:
            row.fail(stack, row.history.failed)
