"""Compiled steps of fully connected networks: what PyTorch gives, up to rounding, and the same bits twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lottery import find_ticket
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd.chain.architecture import NoChain, architecture_of
from lottery.trainers.gd.chain.chain import Chain, chain_for
from lottery.trainers.gd.chain.paths import Paths, Rates, choose_paths
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import blobs, removed

TABLE = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
NOTHING: frozenset[str] = frozenset()
# Tests choose the way of a layer by what the other one costs. Both cost so much that as many cores work as there are.
SPARSE, DENSE = Rates(1.0, 1e3, 1e3, 1), Rates(1e3, 1.0, 1.0, 1)


def mlp(seed: int = 0, activation: type[nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 37, bias=bias), activation(), nn.Linear(37, 20), activation(), nn.Linear(20, 3))


def ready(model: Any = mlp, data: Data = TABLE, **settings: Any) -> GDTrainer:
    parts = prepare(data, 0)
    chosen: dict[str, Any] = {"steps": 40, "batch_size": 21} | settings
    config = GDConfig(**chosen)
    trainer = setup(Ask(torch_source(model, parts, "model"), parts, config, None, None, Silent(), 0)).trainer
    assert isinstance(trainer, GDTrainer)
    return trainer


def compiled(rates: Rates, model: Any = mlp, data: Data = TABLE, shards: int = 1, **settings: Any) -> GDTrainer:
    trainer = ready(model, data, **settings)
    assert trainer.chain is not None, chain_for(trainer.model, trainer.parts, trainer.objective, trainer.config)
    return replace(trainer, chain=replace(trainer.chain, rates=replace(rates, cores=shards)))


def job(model: nn.Module, seed: int = 0, density: float = 0.4, budget: Budget | None = None) -> Job:
    rng = np.random.default_rng(seed)
    mask = Mask({name: rng.random(shape) < density for name, shape in prunable(model).items()})
    params = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return Job(params, mask, seed, budget or Budget(0, 40))


def trained(trainer: GDTrainer, job: Job, needs: frozenset[str] = NOTHING) -> Trained:
    (result,) = trainer.train([job], needs)
    assert result.diverged is None
    return result


def assert_same(one: Trained, other: Trained, rtol: float = 2e-4, atol: float = 2e-6) -> None:
    for name in other.params:
        np.testing.assert_allclose(one.params[name], other.params[name], rtol=rtol, atol=atol, err_msg=name)
    points = [
        [tuple(value for value in vars(p).values() if value is not None) for p in t.history] for t in (one, other)
    ]
    np.testing.assert_allclose(points[0], points[1], rtol=rtol, atol=1e-5)


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "clipped": {"optimizer": "sgd", "lr": 0.1, "clip_norm": 0.5, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01, "warmup": 5, "eval_every": 7},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "milestones", "milestones": (20, 30)},
    "smoothed": {"optimizer": "sgd", "lr": 0.1, "label_smoothing": 0.2},
    "factors": {"optimizer": "sgd", "lr": 0.1, "lr_factors": {"0.weight": 0.1, "4.bias": 3.0}},
    "a part": {"optimizer": "sgd", "lr": 0.1, "train_only": ("4.*", "0.bias")},
}


@pytest.mark.parametrize("rates", [SPARSE, DENSE], ids=["sparse", "dense"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_training_is_the_one_that_pytorchs_operations_give(settings, rates):
    trainer = compiled(rates, **settings)
    work = job(mlp(1))
    found, expected = trained(trainer, work), trained(replace(trainer, chain=None), work)
    assert_same(found, expected)
    ways = found.facts["steps_by"]["layers"]
    assert set(ways.values()) == {"sparse" if rates is SPARSE else "dense"}
    assert (removed(work.mask, found.params) == 0).all()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_activations_and_shards(activation, shards):
    def model(seed: int = 0) -> nn.Module:
        return mlp(seed, activation, bias=False)

    for rates in (SPARSE, DENSE):
        trainer = compiled(rates, model, batch_size=96, shards=shards, optimizer="sgd", lr=0.1)
        work = job(model(1))
        found = trained(trainer, work)
        assert found.facts["steps_by"]["shards"] == shards
        assert_same(found, trained(replace(trainer, chain=None), work))


def test_numbers_as_targets():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 6), np.float32), rng.standard_normal((80, 3), np.float32)
    data = Data(train=(x[:60], y[:60]), validation=(x[60:], y[60:]))
    trainer = compiled(SPARSE, data=data, optimizer="sgd", lr=0.05)
    assert_same(trained(trainer, job(mlp(1))), trained(replace(trainer, chain=None), job(mlp(1))))


@given(seed=st.integers(0, 99), density=st.sampled_from([0.0, 0.03, 0.2, 0.7, 1.0]), batch=st.integers(1, 70))
def test_any_mask_and_any_batch(seed, density, batch):
    """Units without any weight in or out, empty layers, batches that fill no vector: all the same as PyTorch."""
    trainer = _by_batch(batch)
    work = job(mlp(seed), seed, density)
    assert_same(trained(trainer, work), trained(replace(trainer, chain=None), work))


@pytest.mark.parametrize("optimizer", [{"optimizer": "adam", "weight_decay": 0.1}, {"optimizer": "sgd", "lr": 0.1}])
def test_inputs_that_are_always_0_while_training_are_left_out_exactly(optimizer):
    """Their weights decay as others do, and count where another example has such an input."""
    (x, y), (other, labels) = blobs(96), blobs(30, seed=1)
    x = x.copy()
    x[:, [1, 4]] = 0
    data = Data(train=(x, y), validation=(other, labels), test=(other, labels))
    trainer = compiled(SPARSE, data=data, **optimizer)
    assert trainer.chain is not None
    assert trainer.chain.silent is not None
    assert np.flatnonzero(trainer.chain.silent).tolist() == [1, 4]
    found, expected = trained(trainer, job(mlp(1))), trained(replace(trainer, chain=None), job(mlp(1)))
    assert_same(found, expected)
    everything = replace(trainer, chain=replace(trainer.chain, silent=None))
    whole = trained(everything, job(mlp(1)))
    assert all((found.params[name] == whole.params[name]).all() for name in whole.params)


def _by_batch(batch: int) -> GDTrainer:
    return compiled(SPARSE, batch_size=batch, steps=40, eval_every=40, optimizer="sgd", lr=0.05, momentum=0.9)


@pytest.mark.parametrize("rates", [SPARSE, DENSE], ids=["sparse", "dense"])
def test_the_same_bits_twice_with_any_number_of_threads_and_neighbours(rates):
    trainer = compiled(rates, batch_size=96, shards=3, optimizer="adam")
    jobs = [job(mlp(seed), seed) for seed in range(4)]
    alone = [trained(trainer, each) for each in jobs]
    assert trainer.chain is not None
    assert alone[0].facts["steps_by"]["shards"] == 3
    for cores in (1, 2, 3, 8):
        again = replace(trainer, chain=replace(trainer.chain, threads=cores))
        for one, other in zip(again.train(jobs, NOTHING), alone, strict=True):
            assert one.history == other.history
            assert all((one.params[name] == other.params[name]).all() for name in other.params)


def test_what_is_told_is_told_as_if_one_were_trained_after_the_other():
    class Told(Silent):
        def __init__(self) -> None:
            self.points: list[tuple[int, int]] = []

        def evaluated(self, job: Job, evaluation: Any) -> None:
            self.points.append((job.seed, evaluation.step))

    watch = Told()
    trainer = replace(compiled(SPARSE, eval_every=10), watch=watch)
    list(trainer.train([job(mlp(seed), seed) for seed in range(5)], NOTHING))
    assert watch.points == [(seed, step) for seed in range(5) for step in (10, 20, 30, 40)]


def test_a_training_from_the_middle_sees_what_the_whole_one_saw():
    trainer = compiled(SPARSE, optimizer="sgd", lr=0.1, schedule="cosine", eval_every=40)
    whole = trained(trainer, job(mlp(1), budget=Budget(0, 40, (13, 40))))
    later = job(mlp(1), budget=Budget(13, 40))
    again = trained(trainer, replace(later, params={**later.params, **whole.snapshots[13]}))
    assert whole.snapshots.keys() == {13, 40}
    assert all((again.params[name] == whole.params[name]).all() for name in whole.params)


def test_a_diverged_training_says_so_and_leaves_the_others_alone():
    trainer = compiled(SPARSE, optimizer="sgd", lr=0.1, eval_every=10)
    jobs = [job(mlp(seed), seed) for seed in range(3)]
    broken = replace(jobs[1], params={**jobs[1].params, "0.bias": np.full(37, np.nan, np.float32)})
    found = list(trainer.train([jobs[0], broken, jobs[2]], NOTHING))
    assert found[1].diverged == "the loss is not finite at step 10"
    for one, other in ((found[0], jobs[0]), (found[2], jobs[2])):
        expected = trained(trainer, other)
        assert all((one.params[name] == expected.params[name]).all() for name in expected.params)


def test_a_standard_deviation_is_that_of_pytorchs_operations():
    trainer = compiled(SPARSE)
    found = trained(trainer, job(mlp(1)), frozenset({"std"}))
    expected = trained(replace(trainer, chain=None), job(mlp(1)), frozenset({"std"}))
    assert found.std is not None
    assert expected.std is not None
    for name in expected.std:
        np.testing.assert_allclose(found.std[name], expected.std[name], rtol=1e-2)


class TestArchitecture:
    def test_a_forward_pass_written_by_hand(self):
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 4)])
                self.head = nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                """All layers in turn."""
                x = x.view(x.size(0), -1)
                for layer in self.layers:
                    x = F.relu(self.through(layer, x))
                return self.head(x)

            def through(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
                return layer(x)

        found = architecture_of(Net())
        assert isinstance(found, tuple)
        assert [link.activation for link in found] == ["relu", "relu", "identity"]

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)), "(GELU) is not fully connected"),
            (nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.1), nn.Linear(4, 3)), "(Dropout) is not fully connected"),
            (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "it has buffers"),
            (nn.Sequential(nn.ReLU(), nn.Linear(6, 3)), "an activation follows no layer"),
            (nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, (2, 3)), nn.Linear(3, 3)), "is not fully connected"),
        ],
    )
    def test_what_is_none(self, model, reason):
        found = architecture_of(model)
        assert isinstance(found, NoChain)
        assert reason in found.reason

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: _kept(self, x),
            lambda self, x: self.second(self.first(x)) + x.mean(),
            lambda self, x: (self.second(self.first(x)), x),
        ],
    )
    def test_more_than_layers(self, forward):
        net: Any = type("Net", (nn.Module,), {"forward": forward})()
        net.first, net.second = nn.Linear(6, 4), nn.Linear(4, 3)
        assert isinstance(architecture_of(net), NoChain)

    def test_effects(self):
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.calls, self.layer = 0, nn.Linear(6, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return self.layer(x)

        found = architecture_of(Counting())
        assert isinstance(found, NoChain)
        assert "forward may do more than it returns" in found.reason

    def test_hooks_ties_and_computed_weights(self):
        hooked, tied, computed = mlp(), mlp(), mlp()
        hooked[0].register_forward_hook(lambda *_: None)
        tied.append(tied[4])
        nn.utils.parametrizations.weight_norm(computed[0])
        for model in (hooked, tied, computed):
            assert isinstance(architecture_of(model), NoChain)


def _kept(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.seen = x
    return self.second(self.first(x))


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9},
        {"accumulate": 2},
        {"precision": "bf16"},
        {"optimizer": "rmsprop"},
        {"optimizer_params": {"betas": (0.8, 0.9)}},
        {"schedule": "StepLR", "schedule_params": {"step_size": 5}},
        {"moves": "set", "move_every": 5},
        {"steps_by": "pytorch"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_what_only_pytorchs_operations_know(settings):
    assert ready(**settings).chain is None


def test_labels_that_do_not_count_and_double_precision():
    x, y = blobs(96)
    some = y.copy()
    some[3] = -100
    assert ready(data=replace(TABLE, train=(x, some))).chain is None
    assert ready(lambda seed: mlp(seed).double()).chain is None


class TestPaths:
    LAYERS = architecture_of(nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10)))
    RATES = Rates(dense=8e10, sums=6e10, slopes=4e10, cores=4)

    def paths(self, density: float, rates: Rates = RATES) -> Paths:
        assert isinstance(self.LAYERS, tuple)
        rng = np.random.default_rng(0)
        mask = Mask({"0.weight": rng.random((300, 784)) < density, "2.weight": rng.random((10, 300)) < density})
        return choose_paths(self.LAYERS, mask, 128, rates)

    def test_the_thinner_the_cheaper(self):
        seconds = [self.paths(density).seconds for density in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)]
        assert seconds == sorted(seconds, reverse=True)

    def test_pytorch_takes_what_many_cores_do_faster(self):
        """Threads that share a batch of 128 are four at most; PyTorch's share every product."""
        wide = architecture_of(nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 4096)))
        assert isinstance(wide, tuple)
        dense, many = Mask({"0.weight": np.ones((4096, 4096), bool)}), replace(self.RATES, cores=64)
        assert not choose_paths(wide, dense, 128, many).pays
        assert choose_paths(wide, dense, 128, replace(many, cores=2)).pays
        assert self.paths(0.02, many).pays

    def test_dense_layers_stay_dense(self):
        assert not any(self.paths(1.0).sparse.values())
        assert all(self.paths(0.05).sparse.values())

    def test_thin_levels_are_not_worth_several_threads(self):
        assert self.paths(1.0).shards > 1
        assert self.paths(0.01).shards == 1
        assert self.paths(1.0, replace(self.RATES, cores=1)).shards == 1

    @pytest.mark.parametrize("stored", [[], {}, {"dense": 1, "sums": 1, "slopes": -1, "cores": 1}, {"dense": "x"}])
    def test_no_rates(self, stored):
        with pytest.raises(BadValue, match="no rates of a machine"):
            Rates.of_json(stored)


def test_a_run_goes_on_by_the_rates_that_it_was_begun_with(tmp_path, monkeypatch):
    def search(levels: int, rates: Rates) -> list[str]:
        monkeypatch.setattr("lottery.trainers.gd.chain.chain.rates_of_machine", lambda library: rates)
        found = find_ticket(mlp, TABLE, levels=levels, steps=20, out=tmp_path, tolerance=1.0)
        assert found.search is not None
        records = sorted(found.search.run.glob("seed-0/level-*/config.json"))
        return [text[text.index('"steps_by"') :].split("}")[0] for text in (path.read_text() for path in records)]

    before = search(1, SPARSE)
    (level,) = tmp_path.glob("*/seed-0/level-01")
    level.rename(tmp_path / "away")
    again = search(1, DENSE)
    assert before == again
    assert "sparse" in again[1]


def test_without_compiled_steps_a_run_says_so_and_goes_on(capsys):
    trainer = replace(compiled(SPARSE), chain=None, rates=None)
    assert trainer.calibrated(None) is not trainer
    assert trainer.calibrated(SPARSE.as_json()).chain is None
    assert "round" in capsys.readouterr().err
    assert compiled(DENSE).calibrated(None).chain is None
    with_rates = compiled(DENSE).calibrated(SPARSE.as_json())
    assert isinstance(with_rates.chain, Chain)
    assert with_rates.calibration == SPARSE.as_json()
