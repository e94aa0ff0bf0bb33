"""How much memory a stack takes, and how many networks it may therefore hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.objective import call
from lottery.settings.sizes import size_in_bytes
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import named_tensors
from lottery.trainers.gd.config import GDConfig
from pruning.copies.copying import copy_module
from pruning.errors import RunError
from pruning.jobs import Job
from pruning.uses.operations import Operations

# Which share of a CUDA device's memory a stack may take where nobody says how much. The data set, what cuBLAS and cuDNN
# work in, and what the allocator rounds up come on top.
_SHARE = 0.6

# Examples that are measured at once where a network is evaluated alone, by those of a training batch.
EVALUATED = 8

_FEW = 4
_MOMENTS = {"adam": 2, "adamw": 2}


@dataclass(frozen=True)
class Footprint:
    """The bytes that one network of a stack takes.

    Attributes:
        held: weights, gradients, what the optimizer keeps, masks, buffers.
        example: what the forward pass of one example makes.
        batch: examples of a step.
    """

    held: int
    example: float
    batch: int

    @property
    def step(self) -> float:
        """Bytes of training and of an evaluation in batches as large as when a network is trained alone.

        >>> Footprint(1000, 10.0, 4).step
        1400.0
        """
        # What the forward pass makes is kept for the backward pass, which makes about as much.
        return self.held + (2 + EVALUATED) * self.batch * self.example


def footprint(model: nn.Module, config: GDConfig, parts: Parts, job: Job, device: torch.device) -> Footprint:
    """Estimate what one network takes; what its forward pass makes is seen on a few examples.

    Args:
        model: the architecture, on the device, with what is frozen frozen.
        config: batch size and optimizer.
        parts: the data.
        job: whose mask it has; all jobs of a level have one for the same tensors.
        device: where it is trained.
    """
    assert isinstance(parts.train, Tensors)
    tensors = named_tensors(model).values()
    trained = sum(_bytes(tensor) for tensor in tensors if tensor.requires_grad)
    fixed = sum(_bytes(tensor) for tensor in tensors if not tensor.requires_grad)
    kept = trained * (1 + _MOMENTS.get(str(config.optimizer), 1 if config.momentum else 0))
    # A recorded step is compared with the step itself, for which what it changes is copied twice.
    copies = 3 if device.type == "cuda" else 1
    masks = job.mask.total * (1 if device.type == "cuda" else 4)
    few = parts.train.inputs[:_FEW]
    made = _made(model, few) / len(few)
    data = (_bytes(parts.train.inputs) + _bytes(parts.train.targets)) / len(parts.train)
    return Footprint(copies * (kept + fixed) + trained + fixed + masks, made + data, config.batch_size)


def most_networks(one: Footprint, limit: float) -> float:
    """Return how many networks fit into so many bytes: 1 at least, which is trained alone.

    >>> most_networks(Footprint(1000, 10.0, 4), 4300), most_networks(Footprint(1000, 10.0, 4), 10)
    (3.0, 1.0)
    """
    return max(1.0, limit // one.step) if math.isfinite(limit) else limit


def evaluated_at_once(one: Footprint, networks: int, limit: float) -> int:
    """Return how many examples are measured at once where that need not be as many as alone.

    A quarter of the memory is given to them, or as much as the groups were made for.

    >>> evaluated_at_once(Footprint(1000, 10.0, 4), 2, 8000), evaluated_at_once(Footprint(1000, 10.0, 4), 2, 80)
    (100, 32)
    """
    least = EVALUATED * one.batch
    return max(least, int(limit / 4 / (networks * one.example))) if math.isfinite(limit) else least


def memory_limit(config: GDConfig, device: torch.device) -> float:
    """Return how many bytes a stack may take: what `max_memory` says, a share of a CUDA device's, or any number.

    >>> memory_limit(GDConfig(max_memory="2MB"), torch.device("cpu")), memory_limit(GDConfig(), torch.device("cpu"))
    (2000000.0, inf)
    """
    if config.max_memory is not None:
        return float(size_in_bytes(config.max_memory))
    if device.type == "cuda":
        return _SHARE * torch.cuda.get_device_properties(device).total_memory
    return math.inf


def out_of_memory(jobs: Sequence[Job], config: GDConfig, device: torch.device) -> RunError:
    """Return what is said where the device's memory did not do.

    >>> print(out_of_memory([], GDConfig(), torch.device("cpu")))
    cpu ran out of memory while one network trained: take a smaller --batch-size (batch_size)
    """
    if len(jobs) < 2:
        return RunError(
            f"{device} ran out of memory while one network trained: take a smaller --batch-size (batch_size)"
        )
    now = config.max_memory or f"{_SHARE:.0%} of the device's memory"
    return RunError(
        f"{device} ran out of memory while {len(jobs)} networks trained in one stack: give a smaller --max-memory "
        f"(max_memory, now {now}), which splits the stack"
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _made(model: nn.Module, inputs: torch.Tensor) -> int:
    """Return the bytes of all that a forward pass makes; where nothing can listen to it, of its inputs eight times."""
    counting, copy = _Counting(), copy_module(model)
    try:
        with seeded_everywhere(0), torch.enable_grad(), counting:
            call(copy, inputs)
    except (Exception, SystemExit):  # a mode that listens to every operation is more than some networks stand
        return 8 * _bytes(inputs)
    return counting.total


class _Counting(Operations):
    """Adds up the bytes of what operations make; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        held = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in held:
                self.total += _bytes(each)
        return result
