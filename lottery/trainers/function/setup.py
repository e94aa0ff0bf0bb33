"""A training loop of the caller's own, ready for a search."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from lottery.data.batches import move, steps_per_epoch, training_batches
from lottery.data.parts import Parts
from lottery.data.unseen import Unseen
from lottery.networks.objectives.metric import Measure
from lottery.networks.objectives.objective import call, objective_for, own
from lottery.networks.sources.source import ModelSource
from lottery.settings.functions import function_of
from lottery.state.identity import identify
from lottery.state.machine.device import choose_device
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import check_finite, float_type
from lottery.trainers import Ask, Setup
from lottery.trainers.function.config import LoopConfig
from lottery.trainers.function.trainer import LoopTrainer, arguments, measured_by, measured_on
from pruning.copies.copying import copy_module
from pruning.copies.own_parameters import check_as_it_runs
from pruning.errors import BadValue, DataError, RunError


def setup(ask: Ask) -> Setup:
    """Check model, functions and data, and return the trainer.

    Raises:
        BadValue: a function that cannot be called so, or nothing to measure with.
    """
    config: LoopConfig = ask.config
    source = ask.source
    assert isinstance(source, ModelSource)
    assert isinstance(ask.parts, Parts | Unseen)
    device = choose_device(config.device)
    train = function_of("train", config.train)
    late = None
    if arguments(train) < 3:
        late = (
            "train takes (model, mask) and no budget, so that it cannot be told at which step to stop or begin: let it "
            "take (model, mask, budget), or use rewind '0' or 'lr'"
        )
    model = source.build(ask.seed).to(device)
    check_finite(model)
    if isinstance(ask.parts, Parts):
        _check_own(model, ask.parts.with_floats(float_type(model)), device)
    if config.evaluate is not None:
        if ask.loss is not None or ask.metric is not None:
            raise BadValue("evaluate measures by itself: leave loss and metric out")
        function = function_of("evaluate", config.evaluate)
        measure, name = measured_by(function), f"evaluate {identify(function)}"
        metric = Measure(getattr(function, "__name__", "evaluate"), config.higher_is_better, config.is_fraction)
    elif isinstance(ask.parts, Parts):
        parts = ask.parts.with_floats(float_type(model))
        loss = own(ask.loss, device) if ask.loss is not None else None
        objective = objective_for(parts.example[1], loss, ask.metric)
        measure, name = measured_on(parts, objective, device, config.batch_size), objective.name
        metric = objective.metric.measure
    else:
        raise BadValue("give data to measure on, or evaluate=function(model), which returns one number")
    try:
        with seeded_everywhere(0):
            measure(copy_module(model))
    except RunError as error:  # said before anything is trained
        raise DataError(str(error)) from error
    per_epoch = steps_per_epoch(ask.parts.train, config.batch_size) if isinstance(ask.parts, Parts) else 1
    total = config.total_steps(per_epoch)
    words = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Setup(
        LoopTrainer(source.build(ask.seed), train, measure, total, per_epoch, device, ask.watch),
        total,
        per_epoch,
        metric,
        name,
        words,
        refusals={"std": "a training by your own function says nothing of standard deviations: use magnitude"},
        late_start=late,
    )


def _check_own(model: nn.Module, parts: Parts, device: torch.device) -> None:
    """Raise `BadValue` for a model that would train another one: the loop may call it in other ways, if this fails."""
    with seeded_everywhere(0), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = copy_module(model).train()
        inputs, _ = next(training_batches(parts.train, 8, seed=0, start=0, stop=1))
        check_as_it_runs(copy, lambda: call(copy, move(inputs, device)))
