"""Which jobs can be trained stacked, and which trainings gain by it."""

from __future__ import annotations

import dataclasses
import random
import traceback
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from lottery.data.parts import Parts, Tensors
from lottery.networks.flops import forward_flops
from lottery.networks.objectives.objective import Objective, call
from lottery.settings.fields import default_of
from lottery.settings.functions import called
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import named_tensors
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from lottery.trainers.gd.optimizers.named import OPTIMIZERS, sparse_embedding
from lottery.trainers.gd.stack import stack_of
from lottery.trainers.gd.stacks.layers import stacking
from pruning.copies.modes import switches_by_itself
from pruning.errors import said
from pruning.jobs import BEST, Job

# Where the forward pass of one network on one batch takes fewer operations, and there are at least this many jobs, they
# are trained stacked. Measured on two busy CPU cores, float32, Adam, one thread: processor time one after the other by
# processor time stacked, medians. Digits MLP at batch 64 (0.8e6): 0.6 for 2 jobs, 0.85 for 3, 1.0 for 4, 1.2 for 5,
# 1.7 for 10, 1.8 for 20; at batch 256 (3.3e6): 1.1 for 5, 1.4 for 10. LeNet-300-100 at batch 64 (34e6): 0.97 for 5,
# 0.96 for 10: its arithmetic is all there is to it. Nothing is measured on CUDA yet: a step of a small network waits
# for launches there, and a stack has as many of them as one network, or a single one where it is recorded. Stacked
# convolutions are grouped ones there as here: where one network's take 1e9 operations, which is some 50 microseconds
# of work, launches alone take it longer than grouped ones would at a tenth of that speed.
STACKED_FLOPS = {"cpu": 4e6, "cuda": 1e9}
STACKED_JOBS = {"cpu": 5, "cuda": 2}

# How many operations the forward passes of one stack take together: beyond that the device is full.
FULL_FLOPS = {"cpu": 5e7, "cuda": 2e10}

# Settings that stacked training understands; one that is not here keeps its default, or jobs are trained alone.
_UNDERSTOOD = frozenset(
    {
        *("steps", "epochs", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "clip_norm"),
        *("lr_factors", "steps_by"),
        *("schedule", "milestones", "gamma", "warmup", "eval_every", "device", "train_only"),
        *("label_smoothing", "max_memory"),
        *("std", "std_window", "std_examples"),
    }
)

# Largest difference between the stacked and the single gradient, as a fraction of the largest gradient.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
_TRIAL_EXAMPLES = 4


def can_stack(
    model: nn.Module, config: GDConfig, parts: Parts, jobs: Sequence[Job], needs: frozenset[str]
) -> str | None:
    """Return why these jobs cannot be trained stacked, or None if no reason shows before training.

    Args:
        model: the architecture.
        config: how to train.
        parts: the data.
        jobs: that would be trained together.
        needs: values that a criterion needs beside the trained weights.
    """
    unusual = [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in _UNDERSTOOD and getattr(config, field.name) != default_of(field)
    ]
    floats = {tensor.dtype for tensor in named_tensors(model).values() if tensor.is_floating_point()}
    # A model that is in evaluation mode as a whole is trained in training mode as a whole.
    training = [module for module in model.modules() if module.training] or list(model.modules())
    if len(jobs) < 2:
        return "there is one job only"
    alone = needs - {BEST}
    if alone:
        return f"{', '.join(sorted(alone))} is taken from one training at a time"
    if config.optimizer not in OPTIMIZERS or config.schedule not in SCHEDULES:
        name = "optimizer" if config.optimizer not in OPTIMIZERS else "schedule"
        return f"{called(name, getattr(config, name))} needs a training of its own"
    if unusual:
        return f"the setting {unusual[0]} needs a training of its own"
    if len({job.budget for job in jobs}) > 1:
        return "the jobs differ in their budgets"
    if any(job.budget.until is not None for job in jobs):
        return "a job may end before its budget"
    if not all(isinstance(part, Tensors) for part in (parts.train, parts.validation, parts.test) if part is not None):
        return "a DataLoader gives one order at a time"
    if not all(part.is_pair for part in (parts.train, parts.validation, parts.test) if isinstance(part, Tensors)):
        return "the batches are more than one tensor of inputs and one of targets"
    if not floats <= _TOLERANCE.keys():
        return "the weights are neither float32 nor float64"
    if sparse_embedding(model) is not None:
        return "sparse gradients cannot be stacked"
    if switches_by_itself(model):
        return "a layer does something of its own when its mode changes"
    if any(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None) for p in model.parameters()):
        return "hooks on parameters see one network's gradients"
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase):
            return f"{_layer(name, module)}: recurrent layers keep their weights where they cannot be stacked"
        if isinstance(module, _DropoutNd) and module.p > 0 and module in training:
            return f"{_layer(name, module)}: dropout draws random numbers"
    return None


def refusal(
    model: nn.Module, config: GDConfig, parts: Parts, objective: Objective, jobs: Sequence[Job], device: torch.device
) -> str | None:
    """Try a gradient of the stack on a few examples, and return how it differs from single ones; None where not.

    The first and the last job are compared: losses, gradients, buffers, and outputs in evaluation mode.
    """
    assert isinstance(parts.train, Tensors)
    for function in (objective.loss, objective.metric.function):
        # PyTorch's own losses hold nothing that a batch changes.
        if isinstance(function, nn.Module) and type(function).__module__ != "torch.nn.modules.loss":
            return "the loss or the metric may keep state"
    count = _TRIAL_EXAMPLES
    position = torch.arange(count * len(jobs), device=device).remainder(len(parts.train)).unflatten(0, (-1, count))
    inputs, targets = parts.train.inputs[position], parts.train.targets[position]
    with seeded_everywhere(0), warnings.catch_warnings(), stacking(device):
        stack = stack_of(model, jobs, config.train_only, device)
        names = named_tensors(stack.model).keys()
        before = _random_state()
        try:
            warnings.simplefilter("error")  # torch.func says so where it loops over the jobs instead
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")  # nor has it alone
            losses = stack.losses(objective.loss, inputs, targets)
            losses.sum().backward()
            outputs = stack.in_evaluation().outputs(inputs[0])
            if not isinstance(outputs, torch.Tensor):
                return "the network's output is no tensor"
        except torch.OutOfMemoryError:
            raise  # that is no reason to train them otherwise
        except (Exception, SystemExit) as error:  # torch.func refuses in many ways; a model or loss may raise anything
            return _where(stack.model, error) + said(error)
        if named_tensors(stack.model).keys() != names:
            return "the forward pass makes buffers"
        if _random_state() != before:
            return "the forward pass draws random numbers"
        for row in (0, len(jobs) - 1):
            network = network_for(model, jobs[row], config.train_only, device).model
            loss = objective.loss(call(network, inputs[row]), targets[row])
            loss.backward()
            single = {name: tensor.grad for name, tensor in named_tensors(network).items() if tensor.requires_grad}
            buffers = {name: tensor for name, tensor in named_tensors(network).items() if not tensor.requires_grad}
            with torch.no_grad():
                expected = call(network.eval(), inputs[0])
            pairs = [(loss, losses[row]), (expected, outputs[row])]
            pairs += [(tensor, stack.fixed[name][row]) for name, tensor in buffers.items()]
            for name, gradient in single.items():
                stacked = stack.trained[name].grad
                if (gradient is None) != (stacked is None):
                    return f"the gradient of {name!r} is there only one way"
                if gradient is not None and stacked is not None:
                    pairs.append((gradient, stacked[row]))
            if not all(_alike(one, other) for one, other in pairs):
                return "stacked, the network computes something else"
    return None


def _layer(name: str, module: nn.Module) -> str:
    return f"layer {name!r} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"


def _where(model: nn.Module, error: BaseException) -> str:
    """Return the innermost layer in whose forward pass an error was raised, as words to put before what it says.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Flatten(5))
    >>> try:
    ...     model(torch.zeros(1, 2))
    ... except IndexError as error:
    ...     _where(model, error)
    "layer '1' (Flatten): "
    """
    names = {id(module): _layer(name, module) for name, module in model.named_modules()}
    found = [names.get(id(frame.f_locals.get("self"))) for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = [name for name in found if name is not None]
    return f"{inner[-1]}: " if inner else ""


def _random_state() -> tuple[object, ...]:
    """Return the state of every generator that a forward pass may draw from."""
    by_numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), repr(by_numpy), torch.random.get_rng_state().numpy().tobytes()


def gains(flops: float, count: int, device: torch.device) -> bool:
    """Say whether `count` networks, whose forward passes take `flops` operations each, train faster stacked.

    >>> cpu = torch.device("cpu")
    >>> gains(1e3, 5, cpu), gains(1e3, 1, cpu), gains(1e9, 5, cpu)
    (True, False, False)
    """
    return count >= STACKED_JOBS[device.type] and flops <= STACKED_FLOPS[device.type]


def batch_flops(model: nn.Module, parts: Parts, batch_size: int) -> float | None:
    """Return how many operations the forward pass of one batch takes; None where that cannot be counted.

    >>> part = Tensors(torch.ones(4, 3), torch.zeros(4))
    >>> batch_flops(nn.Linear(3, 2), Parts(part, part, None, "few"), batch_size=10)
    120.0
    """
    assert isinstance(parts.train, Tensors)
    few = parts.train.inputs[:_TRIAL_EXAMPLES]
    flops = forward_flops(model, few)
    return None if flops is None else flops / len(few) * batch_size


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = one.detach().nan_to_num(0.0).abs().max().item() if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE[one.dtype] * scale + 1e-12, equal_nan=True)
