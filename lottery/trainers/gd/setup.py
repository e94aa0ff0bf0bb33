"""Gradient descent, ready for a search."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from lottery.data.batches import Batch, move, size, steps_per_epoch, training_batches
from lottery.data.parts import Part, Parts, Tensors
from lottery.networks.evaluation import InEvaluation, evaluate
from lottery.networks.flops import forward_flops
from lottery.networks.layout import channels_last_pays, same_channels_last, turned, turned_images
from lottery.networks.objectives.broadcasting import noticing_broadcasts
from lottery.networks.objectives.class_losses import is_cross_entropy
from lottery.networks.objectives.labels import check_labels, check_outputs
from lottery.networks.objectives.objective import Objective, call, objective_for, own, require_tensors
from lottery.networks.objectives.tallies import loss_sums, metric_sums
from lottery.networks.sources.following import follow
from lottery.networks.sources.source import ModelSource
from lottery.networks.threads import threads_worth
from lottery.networks.trainable import freeze_others
from lottery.settings.functions import called
from lottery.state.machine.device import choose_device
from lottery.state.machine.telling import say
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import check_finite, float_type
from lottery.trainers import Ask, Setup
from lottery.trainers.descent import unread
from lottery.trainers.factors import factors_for
from lottery.trainers.gd.augment import AUGMENTATIONS
from lottery.trainers.gd.behaviour import behaviour
from lottery.trainers.gd.chain.architecture import NoChain
from lottery.trainers.gd.chain.chain import chain_for
from lottery.trainers.gd.config import NO_MOVES, GDConfig
from lottery.trainers.gd.loop.precision import slow_half
from lottery.trainers.gd.optimizers.given import optimizers_for
from lottery.trainers.gd.optimizers.rates import FOLLOWS, rates_for
from lottery.trainers.gd.survivors.choosing import rates_for_layers
from lottery.trainers.gd.trainer import GDTrainer
from pruning.calls.users_code import users_code
from pruning.copies.own_parameters import gradients_within, require_own_parameters
from pruning.errors import BadValue, DataError, RunError

# Where a forward pass takes fewer operations than this, threads wait for each other longer than they work: one is as
# fast as two on an idle machine, and many times faster on a busy one.
SINGLE_THREAD_FLOPS = 4_000_000

# How many training batches go through a network at once where no gradients are taken.
LOOKED_AT_ONCE = 8

# How many examples of the validation part are tried at once.
MEASURED_AT_ONCE = 256


def setup(ask: Ask) -> Setup:
    """Put the data on the device, check that model and data fit, and return the trainer.

    Raises:
        DeviceError: a device that is not there.
        DataError: a model that cannot take these inputs, or labels that its outputs cannot give.
    """
    config: GDConfig = ask.config
    source = ask.source
    assert isinstance(ask.parts, Parts)
    assert isinstance(source, ModelSource)
    for line in unread(config):
        say(line)
    device = choose_device(config.device)
    slow = slow_half(config.precision, device)
    if slow is not None:
        say(slow)
    model = source.build(ask.seed).to(device)
    # Said here, before anything is written.
    check_finite(model)
    _check_optimizer(model, config)
    parts = _on_device(ask.parts.with_floats(float_type(model)), device)
    loss = own(ask.loss, device) if ask.loss is not None else None
    objective = objective_for(parts.example[1], loss, ask.metric)
    if ask.loss is None or config.label_smoothing:
        check_labels(parts)
    inputs, targets = _check_fit(model, parts, objective, device)
    with seeded_everywhere(0):
        AUGMENTATIONS[config.augment](inputs)
    flops = forward_flops(source.build(ask.seed), inputs) if device.type == "cpu" else None
    single = flops is not None and flops / size(targets) * config.batch_size < SINGLE_THREAD_FLOPS
    threads = 1 if single else torch.get_num_threads()
    batches = steps_per_epoch(parts.train, config.batch_size)
    total, per_epoch = config.total_steps(batches), max(1, round(batches / config.accumulate))
    factors = factors_for(ask, [name for name, p in model.named_parameters() if p.requires_grad])
    late = _try_steps(model, config, total, factors.under({}))
    rows = follow(ask.source, ask.parts, ask.seed, ask.loss, ask.metric).rows if config.moves != NO_MOVES else {}
    trained = source.build(ask.seed)
    if channels_last_pays(model, device, config.precision) and same_channels_last(model, inputs, targets, objective):
        trained, parts = turned(trained), parts.with_inputs(turned_images)
    found = chain_for(model, parts, objective, config)
    chain = None if isinstance(found, NoChain) else found
    rates = chain.rates if chain is not None else rates_for_layers(config, device)
    trainer = GDTrainer(
        trained, parts, objective, config, total, device, threads, ask.watch, rows, factors, chain, rates
    )
    # Nothing is trained by it: how many threads look changes no weight.
    at_once = LOOKED_AT_ONCE * config.batch_size
    looking = replace(trainer, threads=threads_worth(flops and flops / size(targets) * at_once))
    words = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Setup(
        trainer,
        total,
        per_epoch,
        objective.metric.measure,
        objective.name,
        words,
        late_start=late,
        behave=functools.partial(behaviour, looking),
    )


def _check_optimizer(model: nn.Module, config: GDConfig) -> None:
    """Raise `BadValue` where the optimizer cannot work on what it would train."""
    others = freeze_others(model, config.train_only)
    optimizers = optimizers_for(model, config)
    if optimizers.closure and config.precision == "fp16":
        raise BadValue(f"{called('optimizer', config.optimizer)} asks for the loss again, which fp16 cannot; use bf16")
    if optimizers.closure and config.moves != NO_MOVES:
        raise BadValue(f"{called('optimizer', config.optimizer)} asks for the loss again, and moves need plain steps")
    for parameter in others:
        parameter.requires_grad_(True)


def _try_steps(model: nn.Module, config: GDConfig, total: int, factors: Mapping[str, float]) -> str | None:
    """Take a step with the gradients that the model holds, and return why no training can begin in the middle.

    Raises:
        BadValue: a scheduler that cannot be made, or an optimizer that cannot take these gradients.
    """
    others = freeze_others(model, config.train_only)
    optimizers = optimizers_for(model, config, factors)
    schedule = rates_for(optimizers, config, 0, total)
    if not optimizers.ours and not optimizers.closure:
        with users_code(f"{called('optimizer', config.optimizer)} on a first batch", BadValue):
            for optimizer in optimizers.each:
                optimizer.step()
    for parameter in others:
        parameter.requires_grad_(True)
    return f"{called('schedule', config.schedule)} {FOLLOWS}" if schedule.follows_loss else None


def _on_device(parts: Parts, device: torch.device) -> Parts:
    def moved(part: Part) -> Part:
        return part.map(lambda tensor: tensor.to(device)) if isinstance(part, Tensors) else part

    test = moved(parts.test) if parts.test is not None else None
    return replace(parts, train=moved(parts.train), validation=moved(parts.validation), test=test)


def _check_fit(model: nn.Module, parts: Parts, objective: Objective, device: torch.device) -> Batch:
    """Train on one small batch and measure it, so that a mismatch is one clear line before anything is written.

    The loss sees what the model gives in training mode; loss and metric see what it gives in evaluation mode, where
    auxiliary heads are gone. A metric that does not add up over batches is tried on the whole validation part: on a
    few examples it may be undefined.

    Returns:
        The batch, on the device.
    """
    with seeded_everywhere(0):
        inputs, targets = next(training_batches(parts.train, 8, seed=0, start=0, stop=1))
        inputs, targets = move(inputs, device), move(targets, device)
        shape = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        where = f"on a batch of this data ({type(model).__name__}, inputs {shape})"
        with users_code(f"the model {where}", DataError):
            outputs = call(model, inputs)
        require_own_parameters(model, outputs)
        if is_cross_entropy(objective.loss) and isinstance(outputs, torch.Tensor):
            check_outputs(tuple(outputs.shape), parts)
        if is_cross_entropy(objective.loss):
            require_tensors("the loss by default", outputs, targets)
        with users_code(f"the loss {where}", DataError), noticing_broadcasts(outputs, targets):
            loss = objective.loss(outputs, targets)
            beside = [objective.loss] if isinstance(objective.loss, nn.Module) else []
            with gradients_within(model, loss, beside):
                loss.backward()
        with users_code(f"the model in evaluation mode {where}", DataError):
            outputs = InEvaluation(model)(inputs)
        try:
            with torch.no_grad(), objective.measuring(), noticing_broadcasts(outputs, targets, "the metric"):
                loss_sums(objective.loss, outputs, targets)
                if objective.metric.adds_up:
                    metric_sums(objective.metric, outputs, targets)
            if not objective.metric.adds_up:
                evaluate(model, parts.validation, objective, device, MEASURED_AT_ONCE)
        except (RunError, DataError) as error:
            raise DataError(f"{error}, on what the model returns in evaluation mode") from error
        return inputs, targets
