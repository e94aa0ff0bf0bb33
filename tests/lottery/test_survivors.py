"""Layers of any network that train their survivors alone: what masked dense layers give, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery import find_ticket
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd.alone import _begun
from lottery.trainers.gd.chain.paths import Rates
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.survivors import costs
from lottery.trainers.gd.survivors.costs import Use, pays
from lottery.trainers.gd.trainer import GDTrainer
from pruning.jobs import BEST, Budget, Job, Trained
from pruning.mask import Mask
from pruning.sparse.weights.weight import SparseWeight
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, removed
from tests.pruning.sparse_cases import needs_compiler

NOTHING: frozenset[str] = frozenset()
# Sparse products cost nothing, or dense ones: so tests choose.
SPARSE, DENSE = Rates(1.0, 1e15, 1e15, 1), Rates(1e15, 1.0, 1.0, 1)

pytestmark = needs_compiler


def mlp(seed: int = 0) -> nn.Module:
    """With what no compiled step knows: batch norm, dropout, an activation that is none of theirs."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(48, 30, bias=False),
        nn.BatchNorm1d(30),
        nn.GELU(),
        nn.Dropout(0.2),
        nn.Linear(30, 20),
        nn.ReLU(),
        nn.Linear(20, 3),
    )


def convolutional(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class Transformer(nn.Module):
    """One block over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.1, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.block(x.flatten(1).unflatten(1, (4, 12))).mean(1))


def images(count: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return rng.standard_normal((count, 3, 4, 4)).astype(np.float32) + labels[:, None, None, None], labels


DATA = Data(train=images(96), validation=images(30, 1), test=images(30, 2))
NETWORKS = {"mlp": mlp, "convolutions": convolutional, "transformer": lambda seed=0: Transformer()}


def ready(model: Any = mlp, rates: Rates | None = SPARSE, **settings: Any) -> GDTrainer:
    parts = prepare(DATA, 0)
    chosen: dict[str, Any] = {"steps": 20, "batch_size": 21, "lr": 0.01} | settings
    ask = Ask(torch_source(model, parts, "model"), parts, GDConfig(**chosen), None, None, Silent(), 0)
    trainer = setup(ask).trainer
    assert isinstance(trainer, GDTrainer)
    assert trainer.chain is None
    return replace(trainer, rates=rates)


def job(model: nn.Module, density: float = 0.3, budget: Budget | None = None) -> Job:
    rng = np.random.default_rng(3)
    mask = Mask({name: rng.random(shape) < density for name, shape in prunable(model).items()})
    params = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return Job(params, mask, 0, budget or Budget(0, 20))


def trained(trainer: GDTrainer, job: Job, needs: frozenset[str] = NOTHING) -> Trained:
    (result,) = trainer.train([job], needs)
    assert result.diverged is None
    return result


def ways(result: Trained) -> set[str]:
    return set(result.facts["steps_by"]["layers"].values())


def assert_close(one: Trained, other: Trained) -> None:
    assert list(one.params) == list(other.params)
    for name in other.params:
        np.testing.assert_allclose(one.params[name], other.params[name], rtol=1e-3, atol=1e-4, err_msg=name)
    losses = [[point.validation_loss or 0.0 for point in each.history] for each in (one, other)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "clipped": {"optimizer": "sgd", "lr": 0.1, "clip_norm": 0.5, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "weight_decay": 0.01, "accumulate": 2},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "optimizer_params": {"betas": (0.8, 0.9)}},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_training_is_that_of_masked_dense_layers(settings, network):
    # Adam gives a gradient that is 0 but for rounding (a key's bias in attention) the length of any other.
    epsilon: dict[str, Any] = {}
    if settings["optimizer"] in ("adam", "adamw"):
        epsilon = {"optimizer_params": {"eps": 1e-3} | settings.get("optimizer_params", {})}
    trainer = ready(NETWORKS[network], **(settings | epsilon))
    work = job(NETWORKS[network]())
    found, expected = trained(trainer, work), trained(replace(trainer, rates=None), work)
    assert "sparse" in ways(found)
    assert "steps_by" not in expected.facts
    assert_close(found, expected)
    assert (removed(work.mask, found.params) == 0).all()
    assert_same_arrays(found.params, trained(trainer, work).params)
    assert any((found.params[name] != expected.params[name]).any() for name in work.mask)  # it did go another way


def test_a_kernel_that_moves_by_more_than_a_pixel_stays_dense():
    found = trained(ready(convolutional), job(convolutional()))
    assert found.facts["steps_by"]["layers"] == {"0.weight": "sparse", "3.weight": "dense", "6.weight": "sparse"}
    assert found.facts["layout"] == "channels-last"


def test_only_survivors_have_an_optimizer_state():
    trainer, work = ready(optimizer="adam"), job(mlp())
    training = _begun(trainer, work, NOTHING, 1)
    held = [p.numel() for group in training.learner.stepper.optimizers.each[0].param_groups for p in group["params"]]  # pyright: ignore
    dense = sum(p.numel() for p in mlp().parameters()) - sum(keep.size for keep in work.mask.values())
    assert sum(held) == dense + work.mask.kept
    assert not training.learner.stepper.masked.parameters  # pyright: ignore


def test_snapshots_best_weights_and_averages_are_dense_under_the_old_names():
    trainer = ready(eval_every=5, ema=0.9)
    work = job(mlp(), budget=Budget(0, 20, (0, 7, 20)))
    found = trained(trainer, work, frozenset({BEST, "std"}))
    expected = trained(replace(trainer, rates=None), work, frozenset({BEST, "std"}))
    assert found.best is not None
    assert expected.best is not None
    assert found.snapshots.keys() == {0, 7, 20}
    for step, kept in {**found.snapshots, -1: found.best}.items():
        assert set(kept) == set(work.params)
        assert (removed(work.mask, kept) == 0).all()
        for name, value in (expected.snapshots[step] if step >= 0 else expected.best).items():
            np.testing.assert_allclose(kept[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    for name, keep in work.mask.items():  # survivors begin where they were rewound to, bit for bit
        np.testing.assert_array_equal(found.snapshots[0][name], np.where(keep, work.params[name], 0))
    assert found.std is not None
    assert all(found.std[name].shape == keep.shape for name, keep in work.mask.items())


def test_learning_rates_of_single_tensors():
    trainer = ready(optimizer="sgd", lr=0.1, lr_factors={"1.weight": 1e-9, "5.weight": 0.5})
    work = job(mlp())
    found = trained(trainer, work)
    assert_close(found, trained(replace(trainer, rates=None), work))
    begun = np.where(work.mask["1.weight"], work.params["1.weight"], 0)
    np.testing.assert_allclose(found.params["1.weight"], begun, atol=1e-6)


def test_frozen_layers_stay():
    trainer = ready(optimizer="sgd", lr=0.1, train_only=("5.*",))
    work = job(mlp())
    found = trained(trainer, work)
    assert_close(found, trained(replace(trainer, rates=None), work))


class Reading(nn.Module):
    """Reads a layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(48, 20), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x.flatten(1)))
        return self.out(hidden) + self.first.weight.square().mean()


class Listing(nn.Module):
    """Keeps a layer where nothing can take its place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(48, 20), nn.Linear(20, 3)
        self.listed = [self.first]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.gelu(self.listed[0](x.flatten(1))))


def test_a_forward_pass_that_reads_a_weight_gets_the_dense_one():
    trainer, work = ready(lambda seed=0: Reading()), job(Reading())
    found = trained(trainer, work)
    assert ways(found) == {"sparse"}
    assert_close(found, trained(replace(trainer, rates=None), work))


def test_layers_that_are_not_called_stay_dense():
    trainer, work = ready(lambda seed=0: Listing()), job(Listing())
    found = trained(trainer, work)
    assert found.facts["steps_by"]["layers"] == {"first.weight": "dense", "out.weight": "sparse"}
    assert_close(found, trained(replace(trainer, rates=None), work))


def test_a_network_that_computes_something_else_stays_dense_and_says_so(monkeypatch):
    monkeypatch.setattr(SparseWeight, "forward", lambda self, inputs, bias=None: inputs @ self.dense().t())  # no bias
    trainer, work = ready(), job(mlp())
    found = trained(trainer, work)
    assert ways(found) == {"dense"}
    assert found.facts["steps_by"]["because"] == "its outputs are others with sparse layers"
    assert_same_arrays(found.params, trained(replace(trainer, rates=None), work).params)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_by": "pytorch"},
        {"precision": "bf16"},
        {"moves": "rigl", "move_every": 5},
        {"optimizer": "rmsprop"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_what_keeps_every_layer_dense(settings):
    parts = prepare(DATA, 0)
    config = GDConfig(steps=20, batch_size=21, **settings)
    trainer = setup(Ask(torch_source(mlp, parts, "model"), parts, config, None, None, Silent(), 0)).trainer
    assert isinstance(trainer, GDTrainer)
    assert trainer.rates is None
    assert trainer.calibration is None


def test_an_estimator_that_looks_at_every_step_sees_every_weight():
    trainer, work = ready(std="swag"), job(mlp())
    found = trained(trainer, work, frozenset({"std"}))
    assert "steps_by" not in found.facts
    assert "sparse" in ways(trained(trainer, work))


def test_a_weight_of_two_layers_stays_dense():
    def tied(seed: int = 0) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 48), nn.Linear(48, 3))
        model[3].weight = model[1].weight
        return model

    work = job(tied())
    work = replace(work, params={name: value for name, value in work.params.items() if name != "3.weight"})
    found = trained(ready(tied), work)
    assert found.facts["steps_by"]["layers"] == {"1.weight": "dense", "4.weight": "sparse"}


class TestCosts:
    WEIGHT = SparseWeight(torch.ones(300, 784), np.random.default_rng(0).random((300, 784)) < 0.05)
    RATES = Rates(dense=1.2e11, sums=5e10, slopes=2.5e10, cores=2)

    def test_a_thin_layer_pays(self):
        assert pays(self.WEIGHT, [Use((128, 784), True, True)], self.RATES)

    def test_a_layer_that_is_not_called_or_has_no_product_does_not(self):
        assert not pays(self.WEIGHT, [], self.RATES)
        assert not pays(self.WEIGHT, [Use((128, 784), True, False)], self.RATES)

    def test_a_layer_that_does_not_fit_into_the_cache_pays_later(self):
        keep = np.random.default_rng(0).random((200, 4096)) < 0.15
        whole, half = SparseWeight(torch.ones(200, 4096), keep), SparseWeight(torch.ones(200, 2048), keep[:, :2048])
        assert not pays(whole, [Use((512, 4096), True, True)], self.RATES)
        assert pays(half, [Use((512, 2048), True, True)], self.RATES)

    def test_calls_cost(self):
        small = SparseWeight(torch.ones(10, 20), np.random.default_rng(0).random((10, 20)) < 0.05)
        assert not pays(small, [Use((16, 20), True, True)], self.RATES)

    def test_what_cannot_pay_is_not_tried(self):
        assert not costs.may_pay(0.6, 64, self.RATES)
        assert costs.may_pay(0.2, 64, self.RATES)


def test_a_run_goes_on_by_the_rates_that_it_was_begun_with(tmp_path, monkeypatch):
    def search(rates: Rates) -> tuple[str, list[bytes]]:
        monkeypatch.setattr("lottery.trainers.gd.survivors.choosing.rates_of_machine", lambda library: rates)
        find_ticket(mlp, DATA, levels=1, steps=10, out=tmp_path, tolerance=1.0, prune_rate=0.7)
        (level,) = tmp_path.glob("*/seed-0/level-01")
        return (level / "config.json").read_text(), [path.read_bytes() for path in sorted(level.glob("*.safetensors"))]

    before, weights = search(SPARSE)
    (level,) = tmp_path.glob("*/seed-0/level-01")
    level.rename(tmp_path / "away")
    after, again = search(DENSE)
    assert weights == again
    assert '"sparse"' in before
    assert '"sparse"' in after
