"""Measurements while a network trains: the mean of its losses, and the points of its history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lottery.networks.evaluation import evaluate, failed_loss
from lottery.networks.objectives.objective import Objective
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.loop.precision import autocast
from pruning.jobs import Evaluation, Params
from pruning.mask import Mask


@dataclass
class MeanLoss:
    """The mean of the losses since it was last asked for, of one network or of several at once.

    The sum stays on the device: nothing waits for a loss before the mean is asked for.

    Attributes:
        nothing: 0 in the shape of a loss, on its device: () or [J].
        total: the sum so far.
        count: how many losses are in it.
    """

    nothing: torch.Tensor
    total: torch.Tensor = field(init=False)
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.total = self.nothing

    def add(self, loss: torch.Tensor, steps: int = 1) -> None:
        """Take in the loss of a step, or the sum of those of several."""
        self.total, self.count = self.total + loss, self.count + steps

    def taken(self) -> list[float]:
        """Return the mean of every network, and begin anew.

        >>> mean = MeanLoss(torch.zeros(2))
        >>> mean.add(torch.tensor([1.0, 2.0])), mean.add(torch.tensor([3.0, 2.0]))
        (None, None)
        >>> mean.taken(), mean.count
        ([2.0, 2.0], 0)
        """
        means = [total / self.count for total in self.total.reshape(-1).tolist()]
        self.total, self.count = self.nothing, 0
        return means


@dataclass
class History:
    """The evaluations of one training, and the decisions that follow from them.

    Attributes:
        best: keeps the weights of the best one; None where nobody asks for them.
        points: the evaluations in their order.
        failed: which loss of the last one is not finite, in words; None where training may go on.
    """

    best: Best | None
    points: list[Evaluation] = field(default_factory=list)
    failed: str | None = None

    def add(self, point: Evaluation, network: Callable[[], Params]) -> None:
        """Add an evaluation of the network as it is now."""
        self.points.append(point)
        self.failed = failed_loss(point)
        if self.best is not None:
            self.best.seen(point, network)

    @property
    def best_params(self) -> Params | None:
        """The weights at the smallest validation loss, or None where they are not kept."""
        return self.best.params if self.best is not None else None


def measured(
    frame: GDFrame,
    model: nn.Module,
    objective: Objective,
    mask: Mask,
    step: int,
    train_loss: float,
    outputs_of: Callable[[Any], Any] | None = None,
) -> Evaluation:
    """Return the point of a history that a network gives now; `outputs_of` may give its outputs in its place."""
    # Without gradients eight training batches fit where one fits with them.
    parts, device, batch = frame.parts, frame.device, 8 * frame.config.batch_size
    with autocast(frame.config.precision, device):
        validation_loss, validation = evaluate(model, parts.validation, objective, device, batch, mask, outputs_of)
        test_loss, test = evaluate(model, parts.test, objective, device, batch, mask, outputs_of)
    has_test = parts.test is not None
    return Evaluation(
        step=step,
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation=validation,
        test_loss=test_loss if has_test else None,
        test=test if has_test else None,
    )
