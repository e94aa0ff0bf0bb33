"""Gradient descent on several jobs at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from lottery.data.parts import Part, Tensors
from lottery.networks.evaluation import failed_loss
from lottery.state.tensors import State
from lottery.trainers.gd.frame import Frame
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.optimizers.learning_rate import learning_rate
from lottery.trainers.gd.optimizers.named import make_optimizer
from lottery.trainers.gd.stack import Stack, evaluate_stack, network_of, stack_of, stacked_keeps
from lottery.trainers.gd.stackable import FULL_FLOPS, batch_flops, can_stack, gains, refusal
from lottery.trainers.gd.stacked_batches import stacked_batches
from pruning.jobs import BEST, Evaluation, Job, Params, Trained, stays_finite


def groups_of(trainer: Frame, jobs: Sequence[Job], needs: frozenset[str]) -> list[Sequence[Job]]:
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


def _most(trainer: Frame, jobs: Sequence[Job], needs: frozenset[str]) -> int:
    """Return how many of these jobs are trained together at most."""
    config, parts, device = trainer.config, trainer.parts, trainer.device
    if can_stack(trainer.model, config, parts, jobs, needs) is not None:
        return 1
    model = network_of(trainer.model, jobs[0], config.train_only, device)
    flops = batch_flops(model, parts, config.batch_size)
    if flops is None or not gains(model, flops, len(jobs), device):
        return 1
    if refusal(trainer.model, config, parts, trainer.objective, jobs, device) is not None:
        return 1
    return max(2, int(FULL_FLOPS[device.type] / max(1.0, flops)))


def train_stacked(trainer: Frame, jobs: Sequence[Job], needs: frozenset[str] = frozenset()) -> list[Trained]:
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
    optimizer = make_optimizer(nn.ParameterList(stack.trained.values()), config)
    every = config.eval_every or max(1, trainer.total_steps // 20)
    rows = [_Row(index, job, Best() if BEST in needs else None) for index, job in enumerate(jobs)]
    for row in rows:
        row.keep_snapshot(stack, budget.start)
    loss_sums, loss_count = torch.zeros(len(jobs), device=trainer.device), 0
    batches = stacked_batches(part, config.batch_size, [job.seed for job in jobs], budget.start, budget.stop)
    for step, (inputs, targets) in enumerate(batches, start=budget.start + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1, trainer.total_steps, config)
        optimizer.zero_grad()
        losses = stack.losses(objective.loss, inputs, targets)
        losses.sum().backward()
        _mask_gradients(stack, keeps)
        if config.clip_norm is not None:
            _clip_gradients(stack, config.clip_norm)
        optimizer.step()
        loss_sums, loss_count = loss_sums + losses.detach(), loss_count + 1
        going = [row for row in rows if row.diverged is None]
        for row in going:
            row.keep_snapshot(stack, step)
        if step % every == 0 or step == budget.stop:
            _evaluate(trainer, stack, going, step, [loss / loss_count for loss in loss_sums.tolist()])
            loss_sums, loss_count = torch.zeros(len(jobs), device=trainer.device), 0
            going = [row for row in going if row.diverged is None]
            if not going:
                break
        for row in going:
            trainer.watch.stepped(row.job, step)
    return [row.result(stack) for row in rows]


@dataclass
class _Row:
    """What one job of a stack has given so far."""

    index: int
    job: Job
    best: Best | None
    history: list[Evaluation] = field(default_factory=list)
    snapshots: dict[int, Params] = field(default_factory=dict)
    diverged: Trained | None = None

    def keep_snapshot(self, stack: Stack, step: int) -> None:
        if step in self.job.budget.snapshots:
            self.snapshots[step] = self._network(stack)

    def fail(self, stack: Stack, reason: str) -> Trained:
        # The row goes on in the stack, where its NaN reach no other; nobody looks at it again.
        self.diverged = Trained(params=stack.network(self.index), history=self.history, diverged=reason)
        return self.diverged

    def result(self, stack: Stack) -> Trained:
        if self.diverged is not None:
            return self.diverged
        params = self._network(stack)
        if not stays_finite(params, self.job.params):
            return self.fail(stack, f"the weights are not finite at step {self.job.budget.stop}")
        return Trained(params, self.history, self.snapshots, best=self.best.params if self.best is not None else None)

    def seen(self, stack: Stack, point: Evaluation) -> None:
        self.history.append(point)
        if self.best is not None:
            self.best.seen(point, lambda: self._network(stack))

    def _network(self, stack: Stack) -> State:
        return {name: value for name, value in stack.network(self.index).items() if name in self.job.params}


def _evaluate(trainer: Frame, stack: Stack, rows: Sequence[_Row], step: int, train_losses: Sequence[float]) -> None:
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
        row.seen(stack, point)
        trainer.watch.evaluated(row.job, point)
        if (failed := failed_loss(point)) is not None:
            row.fail(stack, failed)


def _mask_gradients(stack: Stack, keeps: dict[str, torch.Tensor]) -> None:
    pairs = [(stack.trained[name].grad, keep) for name, keep in keeps.items()]
    present = [(gradient, keep) for gradient, keep in pairs if gradient is not None]
    if present:
        torch._foreach_mul_([g for g, _ in present], [keep for _, keep in present])  # pyright: ignore[reportPrivateImportUsage]


def _clip_gradients(stack: Stack, largest: float) -> None:
    """Scale each job's gradient down to the norm `largest`, as `clip_grad_norm_` does for one job."""
    gradients = [leaf.grad for leaf in stack.trained.values() if leaf.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    scale = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.reshape(-1, *[1] * (gradient.dim() - 1)))
