"""Gradients of the loss."""

from __future__ import annotations

import torch

from lottery.networks.example_gradients import differentiable
from lottery.networks.objectives.objective import call
from lottery.search.probes import Look, probe
from lottery.search.probes.modes import without_noise


@probe("gradients", source="Lee et al. 2019, section 4 (arXiv 1810.02340)")
def gradients(look: Look) -> dict[str, torch.Tensor]:
    """dL/dw on a batch of training examples, at the masked weights (of removed weights too).

    In the mode in which the network trains, without noise: batch norms use the batch's own statistics.
    """
    inputs, targets = look.examples
    weights = look.weights
    with differentiable(look.model):
        loss = look.loss(call(without_noise(look.model), inputs), targets)
        found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    return dict(zip(weights, found, strict=True))
