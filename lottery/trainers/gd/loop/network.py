"""The network of one job, as it is set up and as it changes while it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.networks.trainable import freeze_others
from lottery.state.tensors import State, load_state, state_of, unset_buffers
from lottery.trainers.gd.survivors.survivors import Survivors
from pruning.copies.copying import copy_module
from pruning.jobs import Job
from pruning.mask import Mask
from pruning.torch_modules import apply_mask


@dataclass
class JobNetwork:
    """The network of one job, while it trains.

    Attributes:
        module: on the device, in the mode that it trains in.
        mask: which weights take part now.
        explored: which weights took part at any time.
        frozen: parameters that training leaves alone.
        names: the names of the tensors that are handed over.
        survivors: sparse layers that take the places of some while a step is taken; None where all are dense.
    """

    module: nn.Module
    mask: Mask
    explored: Mask
    frozen: Sequence[nn.Parameter]
    names: frozenset[str]
    survivors: Survivors | None = None

    @property
    def model(self) -> nn.Module:
        """The network with its dense layers and the weights that it has now."""
        if self.survivors is not None:
            self.survivors.write()
        return self.module

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Have the network be what trains while the block runs: with its sparse layers, if it has any."""
        return self.survivors.at_work() if self.survivors is not None else contextlib.nullcontext()

    def masked_densely(self) -> dict[str, NDArray[np.bool_]]:
        """Return the masks of the weights whose removed entries are there while a step is taken."""
        return self.survivors.rest(self.mask) if self.survivors is not None else dict(self.mask.items())

    def state(self) -> State:
        """Return the tensors that are handed over as they are now, on the host.

        They are what the job began with, and declared buffers that were None. A buffer that the forward pass made for
        itself is none of them.
        """
        return {name: value for name, value in state_of(self.model).items() if name in self.names}

    def moved_to(self, mask: Mask) -> None:
        """Record that from now on other weights take part."""
        self.mask, self.explored = mask, self.explored | mask

    def thaw(self) -> None:
        """Let gradients be taken of every weight, trained or not."""
        for parameter in self.frozen:
            parameter.requires_grad_(True)


def network_for(model: nn.Module, job: Job, train_only: Sequence[str], device: torch.device) -> JobNetwork:
    """Return a job's network at its rewind point, masked, with what `train_only` leaves alone frozen.

    Args:
        model: the architecture, which is copied.
        job: whose weights and mask it gets.
        train_only: name patterns of what is trained; everything where there are none.
        device: where to.
    """
    copy = copy_module(model).to(device)
    load_state(copy, job.params)
    if not any(module.training for module in copy.modules()):
        copy.train()
    apply_mask(copy, job.mask)  # last: a model may write its weights on `train()`
    frozen = freeze_others(copy, train_only)
    return JobNetwork(copy, job.mask, job.mask, frozen, frozenset({*job.params, *unset_buffers(model)}))
