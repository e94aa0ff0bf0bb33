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
from lottery.trainers.gd.loop.gradients import mask_gradients
from lottery.trainers.gd.loop.history import History, MeanLoss
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.loop.snapshots import Snapshots
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.optimizers.named import make_optimizer
from lottery.trainers.gd.optimizers.rates import rates_for
from lottery.trainers.gd.stack import Stack, evaluate_stack, stack_of, stacked_keeps
from lottery.trainers.gd.stackable import FULL_FLOPS, batch_flops, can_stack, gains, refusal
from lottery.trainers.gd.stacked_batches import stacked_batches
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
    """Return how many of these jobs are trained together at most."""
    config, parts, device = trainer.config, trainer.parts, trainer.device
    if can_stack(trainer.model, config, parts, jobs, needs) is not None:
        return 1
    model = network_for(trainer.model, jobs[0], config.train_only, device).model
    flops = batch_flops(model, parts, config.batch_size)
    if flops is None or not gains(model, flops, len(jobs), device):
        return 1
    if refusal(trainer.model, config, parts, trainer.objective, jobs, device) is not None:
        return 1
    return max(2, int(FULL_FLOPS[device.type] / max(1.0, flops)))


def train_stacked(trainer: GDFrame, jobs: Sequence[Job], needs: frozenset[str] = frozenset()) -> list[Trained]:
    """Train jobs of one budget in one loop; each gets what it would get alone, up to rounding.

    Losses are summed over jobs: as no weight of one is in the loss of another, the gradient of the sum is each job's
    own. Optimizers work element by element, so that one on the stack is one for each job.

    Args:
        trainer: how to train; `can_stack` and `refusal` have nothing against these jobs.
        jobs: of one budget.
        needs: `best`, or nothing.
    """
    config, objective, part, budget = trainer.config, trainer.objective, trainer.parts.train, jobs[0].budget
    assert isinstance(part, Tensors)
    stack = stack_of(trainer.model, jobs, config.train_only, trainer.device)
    keeps = stacked_keeps(stack, jobs)
    masked = [stack.trained[name] for name in keeps]
    # The same for every job: by a rule they would follow its mask, and it is trained alone.
    factors = trainer.factors.under(jobs[0].mask)
    by_place = {str(place): factors.get(name, 1.0) for place, name in enumerate(stack.trained)} if factors else {}
    optimizer = make_optimizer(nn.ParameterList(stack.trained.values()), config, by_place)
    rates = rates_for(Optimizers((optimizer,), ours=True), config, budget.start, trainer.total_steps)
    course = course_of(budget, config, trainer.total_steps)
    mean = MeanLoss(torch.zeros(len(jobs), device=trainer.device))
    rows = [_row(index, job, stack, needs) for index, job in enumerate(jobs)]
    batches = stacked_batches(part, config.batch_size, [job.seed for job in jobs], budget.start, budget.stop)
    for step, (inputs, targets) in enumerate(batches, start=budget.start + 1):
        rates.before(step - 1)
        optimizer.zero_grad()
        losses = stack.losses(objective.loss, inputs, targets)
        losses.sum().backward()
        mask_gradients(masked, list(keeps.values()))
        if config.clip_norm is not None:
            _clip_gradients(stack, config.clip_norm)
        optimizer.step()
        mean.add(losses.detach())
        for row in _going(rows):
            row.stepped(stack, step)
        if course.evaluates(step):
            _evaluate(trainer, stack, _going(rows), step, mean.taken())
            if not _going(rows):
                break
        for row in _going(rows):
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


def _evaluate(trainer: GDFrame, stack: Stack, rows: Sequence[_Row], step: int, train_losses: Sequence[float]) -> None:
    """Add a point to the history of every row that is still going, and end those whose loss is not finite."""
    parts, numbers = trainer.parts, [row.index for row in rows]

    def measured(part: Part | None) -> list[tuple[float, float]] | None:
        if not isinstance(part, Tensors):
            return None
        # As many examples at once as when trained alone: sums in another order round differently.
        return evaluate_stack(stack, numbers, part, trainer.objective, 8 * trainer.config.batch_size)

    validation, test = measured(parts.validation), measured(parts.test)
    assert validation is not None
    for place, row in enumerate(rows):
        train_loss, (validation_loss, validation_metric) = train_losses[row.index], validation[place]
        test_loss, test_metric = test[place] if test is not None else (None, None)
        point = Evaluation(step, train_loss, validation_loss, validation_metric, test_loss, test_metric)
        row.history.add(point, functools.partial(row.network, stack))
        trainer.watch.evaluated(row.job, point)
        if row.history.failed is not None:
            row.fail(stack, row.history.failed)


def _clip_gradients(stack: Stack, largest: float) -> None:
    """Scale each job's gradient down to the norm `largest`, as `clip_grad_norm_` does for one job.

    `clip_gradients` would take all jobs for one.
    """
    gradients = [leaf.grad for leaf in stack.trained.values() if leaf.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    scale = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.reshape(-1, *[1] * (gradient.dim() - 1)))
