"""Masks that move during training: when they move, from which values, and the effect on weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import nn

from lottery.state.tensors import to_numpy
from lottery.trainers.gd.config import NO_MOVES
from lottery.trainers.gd.moves import MOVES, Moment, Move, exchange
from pruning.alive_rows import Rows
from pruning.errors import BadValue
from pruning.jobs import Job, all_finite
from pruning.mask import Mask
from pruning.torch_modules import apply_mask


class MoveSettings(Protocol):
    """The settings that moving masks read."""

    @property
    def moves(self) -> str: ...  # noqa: D102
    @property
    def move_every(self) -> int: ...  # noqa: D102
    @property
    def move_fraction(self) -> float: ...  # noqa: D102
    @property
    def move_until(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Mover:
    """Moves the mask of one training.

    As in Evci et al. (2020, Algorithm 1), a step at which the mask moves changes no weight otherwise: its batch's
    gradient is only looked at. Steps are counted from the beginning of this training.

    Attributes:
        move: proposes what leaves and what comes in.
        names: the names of the tensors whose mask moves: trained ones that have both survivors and removed weights.
        start: the step at which training begins.
        every: steps between moves (ΔT).
        last: steps after which the mask stays (T_end).
        fraction: largest fraction of the survivors that leaves (α).
        seed: the seed of the training.
        rows: for tensors whose rows must not be emptied, the axes that number them.
    """

    move: Move
    names: tuple[str, ...]
    start: int
    every: int
    last: float
    fraction: float
    seed: int
    rows: Rows = field(default_factory=dict)

    def moved(self, model: nn.Module, mask: Mask, step: int) -> Mask | None:
        """Return the mask after this step, whose gradients `model` holds, or None where it does not move.

        The mask also stays where the fraction to remove is less than one weight, and where weights or gradients are
        not finite (training then ends as diverged).
        """
        done = step - self.start
        if done % self.every or done >= self.last:
            return None
        parameters = dict(model.named_parameters())
        seen = {name: parameters[name] for name in self.names}
        weights = {name: to_numpy(parameter) for name, parameter in seen.items()}
        gradients = {n: to_numpy(torch.zeros_like(p) if p.grad is None else p.grad) for n, p in seen.items()}
        if not all_finite(weights) or not all_finite(gradients):
            return None
        moving = Mask({name: mask[name] for name in self.names})
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, step])))
        moment = Moment(weights, gradients, moving, self.fraction, done / self.last, rng)
        after = exchange(moving, self.move(moment), self.rows)
        return None if after == moving else Mask({**mask, **after})


def mover_for(settings: MoveSettings, job: Job, model: nn.Module, rows: Rows) -> Mover | None:
    """Return the object that moves the mask of a job, or None where the mask stays.

    Args:
        settings: the trainer's.
        job: the job to train.
        model: whose parameters that require gradients are trained.
        rows: for tensors whose rows must not be emptied, the axes that number them.

    Raises:
        BadValue: masks should move and no prunable tensor is trained.
    """
    if settings.moves == NO_MOVES:
        return None
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not any(name in trained for name in job.mask):
        raise BadValue(f"moves {settings.moves!r}: none of the tensors that the mask covers is trained")
    counts = job.mask.counts()
    names = tuple(n for n, keep in job.mask.items() if n in trained and 0 < counts[n] < keep.size)
    if not names:
        return None
    return Mover(
        move=MOVES[settings.moves].value,
        names=names,
        start=job.budget.start,
        every=settings.move_every,
        last=settings.move_until * (job.budget.stop - job.budget.start),
        fraction=settings.move_fraction,
        seed=job.seed,
        rows={name: axes for name, axes in rows.items() if name in names},
    )


@torch.no_grad()
def settle(model: nn.Module, optimizer: torch.optim.Optimizer, before: Mask, after: Mask) -> None:
    """Make weights and optimizer those of the mask after a move, in place.

    Weights that left are 0, and so are those that came in (they were removed, and removed weights are 0). Momentum and
    moments of both are 0, as those of removed weights are.
    """
    apply_mask(model, after)
    parameters = dict(model.named_parameters())
    for name, stayed in (before & after).items():
        parameter = parameters[name]
        gone = torch.from_numpy(~stayed).to(parameter.device)
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value.masked_fill_(gone, 0.0)
