"""One step of one training: loss and gradients of its batches, then the optimizer or a move of the mask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lottery.data.batches import Batch, move, training_batches
from lottery.data.parts import Part, Tensors
from lottery.networks.objectives.objective import Objective, call
from lottery.trainers.gd.augment import AUGMENTATIONS
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.network import JobNetwork
from lottery.trainers.gd.loop.precision import autocast, scaler_for
from lottery.trainers.gd.loop.stepping import Stepper, in_steps, masked_parameters
from lottery.trainers.gd.moving import Mover, mover_for, settle
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.optimizers.rates import Rates, rates_for
from pruning.calls.calling import call_once
from pruning.calls.users_code import users_code
from pruning.jobs import Budget, Job


@dataclass(frozen=True)
class Gradients:
    """Loss and gradients of a step.

    Attributes:
        model: the model to train.
        objective: whose loss.
        stepper: forgets old gradients, and takes the new ones.
        forward: hands inputs to the model.
        augment: changes inputs before.
        precision: the precision of the forward pass.
        device: where to.
    """

    model: nn.Module
    objective: Objective
    stepper: Stepper
    forward: Callable[[nn.Module, Any], Any]
    augment: Callable[[Any], Any]
    precision: str
    device: torch.device

    def of(self, step: int, batches: list[Batch]) -> torch.Tensor:
        """Leave the gradients of the batches' mean loss in the model, and return that loss."""
        self.stepper.zero_grad()
        total: torch.Tensor | None = None
        for batch in batches:
            with users_code(f"the model or the loss at step {step}"):
                loss = self._loss(batch)
                loss = loss / len(batches) if len(batches) > 1 else loss
                self.stepper.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _loss(self, batch: Batch) -> torch.Tensor:
        inputs, targets = batch
        with autocast(self.precision, self.device):
            outputs = self.forward(self.model, self.augment(move(inputs, self.device)))
            return self.objective.loss(outputs, move(targets, self.device))


@dataclass(frozen=True)
class Losses:
    """The losses of some steps.

    Attributes:
        total: their sum, on the device.
        steps: how many.
    """

    total: torch.Tensor
    steps: int


class Learns(Protocol):
    """Takes the steps of one training, one or many at a time."""

    def strides(self, budget: Budget, seed: int, due: Callable[[int], bool]) -> Iterator[tuple[int, Any]]:
        """Yield what `take` takes, each with the number of its last step; none goes beyond a step that is due."""
        ...

    def take(self, step: int, stride: Any) -> Losses:
        """Take the steps of a stride, the last of which has this number, counted from 1."""
        ...

    def evaluated(self, loss: float | None) -> None:
        """Hear that the loss on the validation part was measured."""
        ...

    @property
    def mover(self) -> Mover | None:
        """Moves the mask; None where it stays."""
        ...

    @property
    def outputs_of(self) -> Callable[[Any], Any] | None:
        """Gives the network's outputs for a batch of inputs faster than the network; None where nothing does."""
        ...


@dataclass(frozen=True)
class Learner:
    """Takes the steps of one training, one at a time, by PyTorch's operations.

    Attributes:
        network: the network to train.
        gradients: the gradients of a step.
        stepper: the optimizer.
        rates: sets its learning rates.
        mover: moves the mask; None where it stays.
        part: the training examples.
        config: how many of them a step sees.
    """

    network: JobNetwork
    gradients: Gradients
    stepper: Stepper
    rates: Rates
    mover: Mover | None
    part: Part
    config: GDConfig
    outputs_of: None = None

    def strides(self, budget: Budget, seed: int, due: Callable[[int], bool]) -> Iterator[tuple[int, list[Batch]]]:
        """Yield the number of every optimizer step and its batches."""
        each = self.config.accumulate
        first, last = budget.start * each, budget.stop * each
        batches = training_batches(self.part, self.config.batch_size, seed, first, last)
        return enumerate(in_steps(batches, each), start=budget.start + 1)

    def take(self, step: int, stride: list[Batch]) -> Losses:
        """Take one step."""
        with self.network.at_work():
            return Losses(self.step(step, stride), 1)

    def evaluated(self, loss: float | None) -> None:
        """Tell the learning rates: some follow this loss."""
        self.rates.evaluated(loss)

    def step(self, step: int, batches: list[Batch]) -> torch.Tensor:
        """Take step number `step`, the first of which is 1, and return the loss before it."""
        self.rates.before(step - 1)
        loss = self.gradients.of(step, batches)
        self.stepper.unscale()
        if self._moves_mask(step):
            self.stepper.skip()
        else:
            self.stepper.take(step, loss, functools.partial(self.gradients.of, step, batches))
        self.rates.after(step)
        return loss

    def _moves_mask(self, step: int) -> bool:
        """Move the mask where that is due, and say whether it moved."""
        network = self.network
        moved = self.mover.moved(network.model, network.mask, step) if self.mover is not None else None
        if moved is None:
            return False
        for optimizer in self.stepper.optimizers.each:
            settle(network.model, optimizer, network.mask, moved)
        network.moved_to(moved)
        self.stepper.masked = masked_parameters(network.model, moved)
        return True


def learner_for(frame: GDFrame, job: Job, network: JobNetwork, optimizers: Optimizers, objective: Objective) -> Learner:
    """Return the learner that takes the steps of a job.

    Args:
        frame: how to train.
        job: the job to train.
        network: the network of the job.
        optimizers: the optimizers of the network.
        objective: this training's own.

    Raises:
        BadValue: masks that cannot move, a scheduler that cannot be made.
    """
    config, model, device = frame.config, network.model, frame.device
    mover = mover_for(config, job, model, frame.rows)
    with network.at_work():
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        masked = masked_parameters(model, network.masked_densely())
    stepper = Stepper(optimizers, parameters, config.clip_norm, scaler_for(config.precision, device), masked)
    # Tensors are gathered anew for every step; a loader may hand out what its data set keeps.
    once = isinstance(frame.parts.train, Tensors) and not optimizers.closure
    forward, augment = call_once if once else call, AUGMENTATIONS[config.augment]
    gradients = Gradients(model, objective, stepper, forward, augment, config.precision, device)
    rates = rates_for(optimizers, config, min(job.budget.start, frame.total_steps - 1), frame.total_steps)
    return Learner(network, gradients, stepper, rates, mover, frame.parts.train, config)
