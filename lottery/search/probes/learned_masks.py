"""Shared by probes that learn a mask: a training in which the prunable weights are computed from other tensors.

tensors ─▶ make ─▶ weights ─▶ network ─▶ loss;  d loss / d weights ─▶ through make ─▶ tensors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lottery.data.batches import move, training_batches
from lottery.networks.objectives.objective import call
from lottery.search.probes import Look
from lottery.state.machine.bars import with_bar
from lottery.state.randomness import seeded_everywhere
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.optimizers.named import make_optimizer
from lottery.trainers.gd.optimizers.rates import rates_for
from pruning.errors import BadValue
from pruning.masks.complex_tensors import real_product

# At a step, counted from 0: the weights that the network computes with, by name, and a penalty (a scalar).
Make = Callable[[int], tuple[Mapping[str, torch.Tensor], torch.Tensor]]


@dataclass(frozen=True)
class Group:
    """Tensors that one optimizer trains.

    Attributes:
        tensors: the tensors to train.
        settings: optimizer, learning rate and schedule.
    """

    tensors: Sequence[nn.Parameter]
    settings: GDConfig


def survivors(look: Look) -> dict[str, torch.Tensor]:
    """Return the current mask as boolean tensors on the device, by name."""
    return {name: torch.from_numpy(keep.copy()).to(look.device) for name, keep in look.mask.items()}


def learn(look: Look, groups: Sequence[Group], make: Make) -> None:
    """Train for `look.steps` steps, in training mode; the network's own weights are overwritten.

    The weights are written into the network and the gradient is taken from there, so that modules which hold on to
    their parameters (recurrent layers) and tied weights are seen to.

    Args:
        look: the network, the data and how long.
        groups: the tensors to train, with the settings of each group.
        make: makes the weights of a step from what is trained.

    Raises:
        BadValue: a training that leaves the finite numbers.
    """
    assert look.part is not None
    weights = look.weights
    optimizers = [make_optimizer(nn.ParameterList(group.tensors), group.settings) for group in groups]
    rates = [
        rates_for(Optimizers((optimizer,), ours=True), group.settings, 0, look.steps)
        for group, optimizer in zip(groups, optimizers, strict=True)
    ]
    for name, module in look.model.named_modules():
        module.training = name not in look.frozen
    with seeded_everywhere(look.seed):
        batches = training_batches(look.part, look.batch_size, look.seed, 0, look.steps)
        for step, (inputs, targets) in enumerate(with_bar(batches, "mask", look.steps)):
            for rate, optimizer in zip(rates, optimizers, strict=True):
                rate.before(step)
                optimizer.zero_grad()
            look.model.zero_grad()
            made, penalty = make(step)
            with torch.no_grad():
                for name, value in made.items():
                    weights[name].copy_(value)
            look.loss(call(look.model, move(inputs, look.device)), move(targets, look.device)).backward()
            pulls = [(value, weights[name].grad) for name, value in made.items()]
            # Linear in the made weights with the loss's own gradient as slope: the chain rule, through `make`.
            sum((real_product(grad, value) for value, grad in pulls if grad is not None), start=penalty).backward()
            for optimizer in optimizers:
                optimizer.step()
    for group in groups:
        if not all(bool(tensor.isfinite().all()) for tensor in group.tensors):
            raise BadValue(f"the mask's training diverged at learning rate {group.settings.lr:g}; lower score_lr")
