"""Copies of a network on one batch: whether it computes the same with sparse layers, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lottery.data.batches import move, training_batches
from lottery.networks.objectives.objective import call
from lottery.networks.rounding import same_up_to_rounding
from lottery.state.randomness import seeded_everywhere
from lottery.trainers.gd.augment import AUGMENTATIONS
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.survivors.survivors import Survivors
from pruning.calls.structures import tensors_in
from pruning.calls.users_code import one_line
from pruning.copies.copying import copy_module
from pruning.jobs import Job
from pruning.mask import Mask
from pruning.sparse.network.owners import owners

# Sums in another order; batch norm and many layers may carry that to the sign of an activation.
_ROUNDING, _OF_GRADIENTS = 0.01, 0.1


class Trial:
    """Tries a network on the first batch that it will be trained on.

    Args:
        frame: how to train.
        model: the network, masked; copies of it run.
        job: the training that is about to begin.
    """

    def __init__(self, frame: GDFrame, model: nn.Module, job: Job) -> None:
        self._frame, self._model, self._mask = frame, model, job.mask
        start = job.budget.start * frame.config.accumulate
        batches = training_batches(frame.parts.train, frame.config.batch_size, job.seed, start, start + 1)
        self._inputs, self._targets = (move(part, frame.device) for part in next(batches))

    def copied(self) -> nn.Module:
        """Return a copy of the network, as it was given."""
        return copy_module(self._model)

    def outputs(self, model: nn.Module) -> Any:
        """Return what a copy gives for the batch; every copy sees the same random numbers."""
        with seeded_everywhere(0), torch.enable_grad():
            return call(model, AUGMENTATIONS[self._frame.config.augment](self._inputs))

    def difference(self, mask: Mask) -> str:
        """Return how the network with these weights sparse computes something else; empty where it does not."""
        dense, sparse = self.copied(), self.copied()
        survivors = Survivors(sparse, owners(sparse, mask))
        try:
            wanted = self._backward(dense)
            with survivors.at_work():
                found = self._backward(sparse)
        except (Exception, SystemExit) as error:  # code around a layer may want more of it than its sparse form has
            return f"it does not run with sparse layers: {one_line(error)}"
        if not same_up_to_rounding(found, wanted, _ROUNDING):
            return "its outputs are others with sparse layers"
        theirs = self._mask_of({name: p.grad for name, p in dense.named_parameters()})
        ours = self._mask_of(survivors.gradients())
        pairs = [*ours.values()], [*theirs.values()]
        if ours.keys() != theirs.keys() or not same_up_to_rounding(*pairs, _OF_GRADIENTS):
            return "its gradients are others with sparse layers"
        return ""

    def _backward(self, model: nn.Module) -> list[torch.Tensor]:
        """Return outputs and loss of the batch, and leave the gradients in the model."""
        objective = self._frame.objective.private()
        outputs = self.outputs(model)
        with torch.enable_grad():
            loss = objective.loss(outputs, self._targets)
            loss.backward()
        return [*tensors_in(outputs), loss.reshape(-1)]

    def _mask_of(self, gradients: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """Return the gradients that are there, 0 where a weight is removed."""
        found = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        for name in found.keys() & self._mask.shapes().keys():
            found[name] = found[name] * torch.from_numpy(self._mask[name].copy())
        return found
