"""Channels last: which networks are trained so, and that it changes rounding only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery.data import Data
from lottery.data.parts import Tensors, prepare
from lottery.networks.layout import CHANNELS_LAST, CONTIGUOUS, channels_last_pays, layout_of, turned
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.stepping import masked_parameters
from lottery.trainers.gd.optimizers.named import OPTIMIZERS
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, removed

CPU = torch.device("cpu")


def images(count: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, 3, count)
    return rng.standard_normal((count, 3, 8, 8), np.float32) + labels[:, None, None, None], labels


DATA = Data(train=images(96), validation=images(30, 1), test=images(30, 2))


def convolutional(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        *between,
        nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 3),
    )


class Viewing(nn.Module):
    """Reads its activations as they lie."""

    def __init__(self, looking: Any = lambda x: x.view(len(x), -1)) -> None:
        super().__init__()
        self.conv, self.out, self.looking = nn.Conv2d(3, 4, 3), nn.Linear(144, 3), looking

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.looking(torch.relu(self.conv(x))))


class Holding(nn.Module):
    """Keeps a view of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(144, 3)
        self.first = self.conv.weight.detach()[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).flatten(1)) * self.first.abs().sum()


def strange(x: torch.Tensor) -> torch.Tensor:
    """Mistakes what lies in memory for what it means."""
    return torch.as_strided(x, (len(x), x[0].numel()), (x[0].numel(), 1))


def ready(model: Any, **settings: Any) -> tuple[GDTrainer, Job]:
    parts = prepare(DATA, 0)
    source = torch_source(model, parts, "model")
    defaults: dict[str, Any] = {"steps": 20, "batch_size": 16, "lr": 0.01}
    ask = Ask(source, parts, GDConfig(**(defaults | settings)), None, None, Silent(), 0)
    trainer = setup(ask).trainer
    assert isinstance(trainer, GDTrainer)
    rng = np.random.Generator(np.random.PCG64(3))
    mask = Mask({name: rng.random(shape) < 0.4 for name, shape in prunable(source.build(0)).items()})
    return trainer, Job(source.initial_state(0), mask, 0, Budget(0, 20))


def trained(trainer: GDTrainer, job: Job, needs: frozenset[str] = frozenset()) -> Trained:
    (result,) = trainer.train([job], needs)
    return result


def as_it_was(trainer: GDTrainer) -> GDTrainer:
    """Return the trainer with everything in rows."""
    model = torch_source(convolutional(), prepare(DATA, 0), "model").build(0)
    return replace(trainer, model=model, parts=trainer.parts.with_inputs(torch.Tensor.contiguous))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_changes_rounding_only(optimizer):
    momentum: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    trainer, job = ready(convolutional(), optimizer=optimizer, weight_decay=0.1, clip_norm=1.0, **momentum)
    result, plain = trained(trainer, job), trained(as_it_was(trainer), job)
    assert (result.facts["layout"], plain.facts["layout"]) == (CHANNELS_LAST, CONTIGUOUS)
    for name, value in plain.params.items():
        np.testing.assert_allclose(result.params[name], value, rtol=1e-3, atol=2e-4, err_msg=name)
    assert [p.validation for p in result.history] == [p.validation for p in plain.history]
    assert (removed(job.mask, result.params) == 0).all()
    assert_same_arrays(result.params, trained(trainer, job).params)


def test_what_is_handed_over_lies_in_rows():
    trainer, job = ready(convolutional(), std="swag", ema=0.9)
    result = trained(trainer, job, frozenset({"std", "best"}))
    for state in (result.params, result.best, result.std):
        assert state is not None
        assert all(np.asarray(value).flags.c_contiguous for value in state.values())
    assert list(result.params) == list(job.params)


@pytest.mark.parametrize("std", ["fisher", "adam", "swag"])
def test_standard_deviations_are_the_same(std):
    trainer, job = ready(convolutional(), std=std, optimizer="adam")
    needs = frozenset({"std"})
    ours, plain = trained(trainer, job, needs).std, trained(as_it_was(trainer), job, needs).std
    assert ours is not None and plain is not None
    for name, value in plain.items():
        np.testing.assert_allclose(ours[name], value, rtol=0.05, atol=1e-3 * float(np.max(value)), err_msg=name)


@pytest.mark.parametrize(
    "model", [Viewing(), Viewing(strange), Holding(), convolutional(nn.Dropout(0.3))], ids=lambda m: type(m).__name__
)
def test_a_network_that_reads_memory_is_left_as_it_is(model):
    trainer, job = ready(model)
    assert layout_of(trainer.model) == CONTIGUOUS
    assert isinstance(trainer.parts.train, Tensors) and trainer.parts.train.inputs.is_contiguous()
    result = trained(trainer, job)
    assert result.diverged is None and result.facts["layout"] == CONTIGUOUS


@pytest.mark.parametrize("name", ["conv-2", "resnet-20"])
def test_the_networks_of_the_papers_are_turned(name):
    trainer, _ = ready(name, batch_size=4)
    assert layout_of(trainer.model) == CHANNELS_LAST


def test_a_dropout_of_channels_or_of_features_is_no_hindrance():
    trainer, _ = ready(nn.Sequential(convolutional(nn.Dropout2d(0.3)), nn.Dropout(0.1)))
    assert layout_of(trainer.model) == CHANNELS_LAST


def test_a_metric_over_all_outputs_gets_them_as_it_knows_them():
    """Such a metric sees joined outputs: images that a network returns stay in rows for it."""
    segmenting, labels = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), np.zeros((96, 8, 8), np.int64)
    parts = prepare(Data(train=(images(96)[0], labels)), 0)
    source = torch_source(segmenting, parts, "model")

    def last(metric: Any) -> str | None:
        asked = Ask(source, parts, GDConfig(steps=2), None, metric, Silent(), 0)
        trainer = setup(asked).trainer
        assert isinstance(trainer, GDTrainer)
        return layout_of(trainer.model)

    assert last(None) == CHANNELS_LAST
    assert last(lambda outputs, targets: outputs.view(-1).mean()) == CONTIGUOUS


def test_other_networks_say_nothing_of_it():
    trainer, job = ready(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
    assert "layout" not in trained(trainer, job).facts


def test_where_it_pays_follows_from_the_layers_and_the_kind_of_device():
    network, cuda = convolutional(), torch.device("cuda")
    assert channels_last_pays(network, CPU, "float32") and channels_last_pays(network, CPU, "bf16")
    assert not channels_last_pays(network.double(), CPU, "float32")
    assert [channels_last_pays(convolutional(), cuda, each) for each in ("float32", "bf16", "fp16")] == [0, 1, 1]
    assert not channels_last_pays(nn.Conv2d(1, 4, 3), CPU, "float32")
    assert not channels_last_pays(nn.Linear(2, 2), CPU, "float32")


def test_masks_lie_as_their_weights_do():
    model = turned(convolutional())
    mask = Mask({"0.weight": np.arange(216).reshape(8, 3, 3, 3) % 3 > 0})
    masked = masked_parameters(model, mask)
    (parameter,), (keep,) = masked.parameters, masked.keeps
    assert keep.stride() == parameter.stride() != keep.contiguous().stride()
    np.testing.assert_array_equal(keep.numpy().astype(bool), mask["0.weight"])


def test_batches_of_turned_images_are_turned_and_the_same():
    trainer, _ = ready(convolutional())
    part = trainer.parts.train
    assert isinstance(part, Tensors)
    index = torch.tensor([5, 2, 9])
    inputs, _ = part.gathered(index)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs, part.inputs.contiguous()[index])
