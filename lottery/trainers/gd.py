"""Gradient descent, ready for a search."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from lottery.data.parts import Part, Parts, Tensors
from lottery.gd.batches import move, size, steps_per_epoch, training_batches
from lottery.gd.config import GDConfig
from lottery.gd.device import choose_device
from lottery.gd.trainer import GDTrainer
from lottery.objective import Objective, call, objective_for
from lottery.trainers import TRAINERS, Ask, Setup, TrainerKind
from pruning.errors import DataError

# Below so many operations a forward pass, threads wait for each other longer than they work: one is as fast as two
# on an idle machine, and many times faster on a busy one.
SINGLE_THREAD_FLOPS = 4_000_000


def setup(ask: Ask) -> Setup:
    """Put the data on the device, check that model and data fit, and return the trainer.

    Raises:
        DeviceError: a device that is not there.
        DataError: a model that cannot take these inputs, or labels that its outputs cannot give.
    """
    config: GDConfig = ask.config
    device = choose_device(config.device)
    parts = _on_device(ask.parts, device)
    objective = objective_for(parts.example[1], ask.loss, ask.metric)
    flops = _check_fit(ask.source.build(ask.seed).to(device), parts, objective, device)
    threads = 1 if device.type == "cpu" and flops * config.batch_size < SINGLE_THREAD_FLOPS else torch.get_num_threads()
    per_epoch = steps_per_epoch(parts.train, config.batch_size)
    total = config.total_steps(per_epoch)
    trainer = GDTrainer(ask.source.build(ask.seed), parts, objective, config, total, device, threads, ask.watch)
    words = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Setup(trainer, total, per_epoch, objective.metric, objective.name, words)


def _on_device(parts: Parts, device: torch.device) -> Parts:
    def moved(part: Part) -> Part:
        return part.to(device)

    test = moved(parts.test) if parts.test is not None else None
    return Parts(moved(parts.train), moved(parts.validation), test, parts.name)


def _check_fit(model: torch.nn.Module, parts: Parts, objective: Objective, device: torch.device) -> float:
    """Run one small batch, so that a mismatch is one clear line before anything is written.

    Returns:
        Floating-point operations of one example's forward pass.
    """
    with torch.random.fork_rng(devices=[]):
        inputs, targets = next(training_batches(parts.train, 8, seed=0, start=0, stop=1))
    inputs, targets = move(inputs, device), move(targets, device)
    model.eval()
    try:
        with torch.no_grad():
            with FlopCounterMode(display=False) as counter:
                outputs = call(model, inputs)
            if isinstance(parts.train, Tensors) and parts.train.targets.dtype == torch.int64:
                _check_labels(outputs, parts)
            objective.loss(outputs, targets)
        return counter.get_total_flops() / size(targets)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        shape = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{type(model).__name__} cannot take a batch of this data (inputs {shape}): {reason}"
        ) from error


def _check_labels(outputs: object, parts: Parts) -> None:
    highest = max(
        int(part.targets.max()) for part in (parts.train, parts.validation, parts.test) if isinstance(part, Tensors)
    )
    if isinstance(outputs, torch.Tensor) and outputs.dim() > 1 and outputs.shape[1] <= highest:
        raise DataError(
            f"labels out of range: the model has {outputs.shape[1]} outputs and the data has label {highest}"
        )


TRAINERS.add(
    "gd", TrainerKind(GDConfig, setup), "gradient descent in PyTorch", "Frankle & Carbin 2019 (arXiv 1803.03635)"
)
