"""Probes: what can be seen of a network on data, by name. One file each, found by itself.

A criterion names the probes it needs; a probe looks at one network in PyTorch, whatever trained it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from lottery.data.batches import Batch, move, sample
from lottery.data.parts import Part
from lottery.networks.objectives.metric import BatchFunction
from lottery.networks.objectives.objective import own
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import load_state, to_numpy
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.jobs import Job
from pruning.mask import Mask
from pruning.registry import Registry, summary_of
from pruning.torch_modules import apply_mask

# Products with the Hessian for each tensor, unless somebody says otherwise.
PROBES_OF_CURVATURE = 64


@dataclass(frozen=True)
class Look:
    """A network, data and settings: everything that a probe may use.

    Attributes:
        model: a private copy on the device, masked, in the modes in which it trains (`lottery.search.probes.modes`); a
            probe may do with it what it likes.
        mask: the current mask.
        frozen: names of the layers that stay in evaluation mode even while the network trains.
        batch: inputs and labels on the device, or None where there are no examples (an environment).
        part: the training examples, for a probe that trains; None where there are none.
        loss: `loss(outputs, targets)`.
        input_shape: the shape of one example.
        density: the density of the mask that is about to be drawn.
        probes: products with the Hessian that each tensor may cost, for a probe that takes some.
        steps: how many steps a probe trains, where it trains.
        lr: learning rate of a probe that trains, or None for the probe's own.
        batch_size: batch size of a probe that trains.
        seed: the seed of everything random.
        device: where the model is.
    """

    model: nn.Module
    mask: Mask
    frozen: frozenset[str]
    batch: Batch | None
    part: Part | None
    loss: BatchFunction
    input_shape: tuple[int, ...]
    density: float
    probes: int
    steps: int
    lr: float | None
    batch_size: int
    seed: int
    device: torch.device

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that the mask covers, by name, in its order."""
        named = dict(self.model.named_parameters())
        return {name: named[name] for name in self.mask}

    @property
    def examples(self) -> Batch:
        """Inputs and labels; only for probes that are registered with `data`."""
        assert self.batch is not None
        return self.batch


ProbeFunction = Callable[[Look], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Probe:
    """A pure function from a look to one tensor for each tensor of the mask; `data` says whether it needs examples."""

    look: ProbeFunction
    data: bool


PROBES: Registry[Probe] = Registry("probe", "lottery.search.probes", listed="probes")


def probe(name: str, *, source: str, data: bool = True) -> Callable[[ProbeFunction], ProbeFunction]:
    """Register a probe; its docstring's first line is its summary.

    Args:
        name: the name that a criterion writes in its `needs`.
        source: the paper that defines it.
        data: whether it needs labelled examples.
    """

    def register(function: ProbeFunction) -> ProbeFunction:
        PROBES.add(name, Probe(function, data), summary_of(function), source)
        return function

    return register


@dataclass(frozen=True)
class TorchProber:
    """Looks at PyTorch networks on training examples.

    Attributes:
        model: the architecture; its weights are never used nor changed.
        part: training examples, or None for an environment.
        loss: `loss(outputs, targets)`.
        input_shape: the shape of one example.
        device: where to look.
        examples: the most training examples to look at.
        steps: training steps of probes that learn.
        lr: their learning rate, or None for their own.
        batch_size: their batch size.
        probes: products with the Hessian that each tensor may cost.
    """

    model: nn.Module
    part: Part | None
    loss: BatchFunction
    input_shape: tuple[int, ...]
    device: torch.device
    examples: int
    steps: int
    lr: float | None
    batch_size: int
    probes: int = PROBES_OF_CURVATURE

    @property
    def provides(self) -> frozenset[str]:
        """Every probe; without examples, those that need none."""
        return frozenset(entry.name for entry in PROBES if self.part is not None or not entry.value.data)

    def look(self, job: Job, density: float, needs: frozenset[str]) -> dict[str, dict[str, NDArray[Any]]]:
        """Run each needed probe on a fresh copy; the caller's random state is left alone."""
        found = {}
        with seeded_everywhere(job.seed):
            for need in sorted(needs):
                with users_code(f"the model or the loss, looked at for {need!r},"):
                    found[need] = self.see(need, self.prepared(job, density))
        return found

    def prepared(self, job: Job, density: float) -> Look:
        """Return a fresh copy of the job's network with the examples to look at."""
        batch = move(sample(self.part, self.examples, job.seed), self.device) if self.part is not None else None
        model = copy_module(self.model).to(self.device)
        load_state(model, job.params)
        apply_mask(model, job.mask)
        frozen = frozenset(name for name, module in model.named_modules() if not module.training)
        return Look(
            model=model,
            mask=job.mask,
            frozen=frozen,
            batch=batch,
            part=self.part,
            loss=own(self.loss),
            input_shape=self.input_shape,
            density=density,
            probes=self.probes,
            steps=self.steps,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=job.seed,
            device=self.device,
        )

    def see(self, need: str, look: Look) -> dict[str, NDArray[Any]]:
        """Run one probe; raises `BadValue` where it gives another shape than the tensor's."""
        found = PROBES[need].value.look(look)
        arrays = {name: to_numpy(found[name]) for name in look.mask}
        for name, keep in look.mask.items():
            if arrays[name].shape != keep.shape:
                raise BadValue(f"probe {need!r} gave shape {arrays[name].shape} for {name!r}, not {keep.shape}")
        return arrays


@dataclass(frozen=True)
class NoProber:
    """Sees nothing, and says why.

    Attributes:
        reason: why there is no more; part of the error for a criterion that needs more.
    """

    reason: str
    provides: frozenset[str] = field(default=frozenset())

    def look(self, job: Job, density: float, needs: frozenset[str]) -> dict[str, dict[str, NDArray[Any]]]:
        """Raise `BadValue`: there is nothing to look with."""
        raise BadValue(self.reason)
