"""The behaviour of a network, its loss and its metric before any training by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_leaves

from lottery.data.batches import move, training_batches
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import call
from lottery.state.behaviour import Behaviour, described
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.trainer import GDTrainer, isolated
from pruning.calls.users_code import users_code
from pruning.jobs import Job

# How many of the first batches are looked at.
FIRST = 2


def behaviour(trainer: GDTrainer, job: Job) -> Behaviour:
    """Return outputs, losses and gradients on the first training batches, and loss and metric on the validation part.

    Args:
        trainer: how it would be trained.
        job: where a training would begin; nothing is trained.
    """
    found: dict[str, Sequence[float | None]] = {}
    with isolated(trainer.device, job.seed, trainer.threads):
        model = network_for(trainer.model, job, trainer.config.train_only, trainer.device).model
        objective = trainer.objective.private()
        batches = training_batches(trainer.parts.train, trainer.config.batch_size, job.seed, 0, FIRST)
        for number, (inputs, targets) in enumerate(batches):
            model.zero_grad()
            with users_code("the model or the loss"):
                outputs = call(model, move(inputs, trainer.device))
                loss = objective.loss(outputs, move(targets, trainer.device))
                loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            found[f"batch {number}"] = [float(loss.detach())]
            found[f"batch {number} outputs"] = described(map(_array, _tensors(outputs)))
            found[f"batch {number} gradients"] = described(map(_array, gradients))
        measured = evaluate(model, trainer.parts.validation, objective, trainer.device, 8 * trainer.config.batch_size)
    found["validation loss"], found["validation metric"] = [measured[0]], [measured[1]]
    return found


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    dense = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
    return (torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense).double().cpu().numpy()
