"""One step of a stack: batches, losses, gradients under the masks, the optimizer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.func import vmap
from torch.optim import Optimizer

from lottery.networks.objectives.class_losses import IGNORED, is_cross_entropy
from lottery.networks.objectives.metric import BatchFunction
from lottery.trainers.gd.stack import Stack
from lottery.trainers.gd.stacks.batches import StackedBatches
from lottery.trainers.gd.stacks.masks import StackedMasks


@dataclass(frozen=True)
class StackStep:
    """Takes steps of a stack; between two of them only the contents of tensors differ.

    Attributes:
        stack: the networks.
        batches: the data of the step that comes next.
        loss: of one network on its batch.
        masks: of the jobs.
        optimizer: of all weights; it works element by element.
        clip_norm: largest norm of each job's gradients, or None.
        losses: [J], the sum of every job's losses since it was set to 0.
    """

    stack: Stack
    batches: StackedBatches
    loss: BatchFunction
    masks: StackedMasks
    optimizer: Optimizer
    clip_norm: float | None
    losses: torch.Tensor

    def take(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()  # of a recording that was broken off
        inputs, targets = self.batches.gathered()
        losses = stacked_gradients(self.stack, self.loss, inputs, targets)
        self.masks.apply_to_gradients(self.stack.trained)
        if self.clip_norm is not None:
            clip_each(self.stack, self.clip_norm)
        self.optimizer.step()
        self.losses.add_(losses)
        self.batches.passed()
        self.optimizer.zero_grad()

    def state(self) -> list[torch.Tensor]:
        """Return every tensor that a step changes and that outlasts it."""
        held = [value for values in self.optimizer.state.values() for value in values.values()]
        moments = [value for value in held if isinstance(value, torch.Tensor)]
        own = [*self.stack.trained.values(), *self.stack.fixed.values()]
        return [*own, *moments, self.losses, self.batches.place]


def stacked_gradients(stack: Stack, loss: BatchFunction, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Leave the gradient of every network's loss in the stack, and return the losses [J].

    Losses are summed over jobs: as no weight of one is in the loss of another, the gradient of the sum is each job's
    own.

    Args:
        stack: the networks.
        loss: of one network on its batch.
        inputs: [J, B, …].
        targets: [J, B, …].
    """
    if inputs.device.type == "cuda" and is_cross_entropy(loss):
        return loss_apart(stack, loss, inputs, targets)
    losses = stack.losses(loss, inputs, targets)
    losses.sum().backward()
    return losses.detach()


def loss_apart(stack: Stack, loss: BatchFunction, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Do what `stacked_gradients` does, with a backward pass of its own for the loss, a cross-entropy.

    Its gradient is scattered to the scores of the labels, each to a place of its own: the same every time. On CUDA
    PyTorch's deterministic way to scatter sorts, and waits for the device, which cannot be recorded; so it is switched
    off for the loss alone.
    """
    outputs = stack.training_outputs(inputs)
    seen = outputs.detach().requires_grad_()
    with _as_quick_as_can_be():
        losses = cross_entropies(loss, seen, targets)
        losses.sum().backward()
    outputs.backward(seen.grad)
    return losses.detach()


def cross_entropies(loss: BatchFunction, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of every network [J], up to rounding.

    Under `vmap` it is some thirty kernels; for plain labels all networks' examples are one batch here, which is ten.

    Args:
        loss: `F.cross_entropy`, or a `functools.partial` of it.
        outputs: [J, B, C] scores of classes; anything else is left to `vmap`.
        targets: [J, B] labels.

    >>> scores, labels = torch.zeros(3, 2, 4), torch.zeros(3, 2, dtype=torch.int64)
    >>> cross_entropies(F.cross_entropy, scores, labels)
    tensor([1.3863, 1.3863, 1.3863])
    """
    said = dict(loss.keywords) if isinstance(loss, functools.partial) and not loss.args else {}
    plain = loss is F.cross_entropy or (said and said.keys() <= {"label_smoothing", "ignore_index"})
    if not plain or outputs.dim() != 3 or targets.shape != outputs.shape[:2] or targets.is_floating_point():
        return vmap(loss)(outputs, targets)
    each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none", **said)
    counts = (targets != said.get("ignore_index", IGNORED)).sum(1)
    return each.reshape(targets.shape).sum(1) / counts


def clip_each(stack: Stack, largest: float) -> None:
    """Scale each job's gradient down to the norm `largest`, as `clip_grad_norm_` does for one job.

    `clip_gradients` would take all jobs for one.
    """
    gradients = [leaf.grad for leaf in stack.trained.values() if leaf.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    scale = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.reshape(-1, *[1] * (gradient.dim() - 1)))


@contextlib.contextmanager
def _as_quick_as_can_be() -> Iterator[None]:
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
