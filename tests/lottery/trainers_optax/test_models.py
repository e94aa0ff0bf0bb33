"""What it trains: JAX models of every kind in training mode, PyTorch modules without one, and what it refuses."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from flax.training.train_state import TrainState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, find_ticket
from lottery.trainers.optax.trainer import OptaxTrainer
from pruning.errors import BadValue, DataError, LotteryError, NothingToPrune, RunError, UnknownName
from pruning.jobs import Budget
from tests.lottery.helpers import blobs, removed, tiny_model
from tests.lottery.trainers_optax.helpers import DATA, job_of, perceptron, problem_in, ready, trained


class Linen(linen.Module):
    rate: float = 0.0
    norm: bool = False

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.Dense(8)(x)
        if self.norm:
            x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return linen.Dense(3)(linen.Dropout(self.rate, deterministic=not train)(linen.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, rate: float = 0.0):
        self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, momentum=0.5, rngs=rngs), nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


class Dropping(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key: Any, rate: float = 0.5):
        self.first, self.second = eqx.nn.Linear(6, 8, key=key), eqx.nn.Linear(8, 3, key=key)
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x: Any, key: Any = None) -> Any:
        return self.second(self.dropout(jax.nn.relu(self.first(x)), key=key))


def mlp(key: Any) -> eqx.nn.MLP:
    return eqx.nn.MLP(6, 3, 8, 1, key=key)


def with_state(seed: int) -> TrainState:
    module = Linen()
    variables: Any = module.init(jax.random.key(seed), np.zeros((1, 6), np.float32))
    return TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optax.identity())


def of_haiku() -> Any:
    transformed = namedtuple("Transformed", ["init", "apply"])
    return transformed(lambda key, x: perceptron(0)[0], lambda params, rng, x: perceptron(0)[1](params, x))


KINDS: dict[str, Callable[[], Any]] = {
    "a maker of pairs": lambda: perceptron,
    "Linen, with statistics": lambda: Linen(0.5, norm=True),
    "Linen's variables": lambda: (Linen().init(jax.random.key(0), np.zeros((1, 6), np.float32)), Linen()),
    "nnx": lambda: Nnx(nnx.Rngs(0), 0.5),
    "Equinox": lambda: mlp(jax.random.key(0)),
    "Equinox, dropping": lambda: Dropping(jax.random.key(0)),
    "a train state": lambda: with_state(0),
    "Haiku": of_haiku,
    "PyTorch": lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind):
    model = KINDS[kind]()
    setup, job = ready(model, steps=40, lr=0.02), job_of(model, density=0.8, budget=Budget(0, 40))
    (result,) = trained(setup, job)
    assert result.diverged is None and result.history[-1].validation is not None
    assert result.history[-1].validation > 0.8
    assert (removed(job.mask, result.params) == 0).all()
    assert result.params.keys() == job.params.keys()


class TestTrainingMode:
    """Dropout draws and statistics move while it trains, and neither does when it is measured."""

    def test_running_statistics_follow_the_batches(self):
        model, data = Linen(norm=True), Data(train=blobs(16), validation=blobs(30, seed=1))
        job = job_of(model, budget=Budget(0, 1))
        (result,) = trained(ready(model, data, steps=1), job)
        hidden = blobs(16)[0] @ job.params["Dense_0.kernel"]  # all examples are in the batch
        np.testing.assert_allclose(result.params["batch_stats.BatchNorm_0.mean"], hidden.mean(0) / 2, rtol=1e-4)
        np.testing.assert_allclose(result.params["batch_stats.BatchNorm_0.var"], (1 + hidden.var(0)) / 2, rtol=1e-4)

    @pytest.mark.parametrize("model", [Linen(0.5), Nnx(nnx.Rngs(0), 0.5), Dropping(jax.random.key(0))])
    def test_dropout_follows_the_key_and_an_evaluation_has_none(self, model):
        problem, job = problem_in(ready(model)), job_of(model)
        arrays = {name: jnp.asarray(value) for name, value in job.params.items()}
        key, forward = jax.random.key(0), jax.jit(problem.forward)
        inputs = problem.task.train[0]
        one, same, other = (forward(arrays, inputs, k)[0] for k in (key, key, jax.random.fold_in(key, 1)))
        assert np.array_equal(one, same) and not np.array_equal(one, other)
        evaluated = problem.task.network.apply(arrays, inputs)
        assert not np.array_equal(one, evaluated)

    def test_statistics_of_one_replicate_are_its_own(self):
        model = Linen(norm=True)
        setup = ready(model, optimizer="sgd", lr=0.1)
        results = trained(setup, *(job_of(model, seed) for seed in (0, 1)))
        alone = trained(setup, job_of(model, 1))[0]
        for name in ("batch_stats.BatchNorm_0.mean", "Dense_0.kernel"):
            np.testing.assert_allclose(results[1].params[name], alone.params[name], atol=1e-5)
            assert not np.allclose(results[0].params[name], alone.params[name], atol=1e-3)


class Empty(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return x[:, :3]


def normalized() -> Any:
    class Normalized(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __init__(self) -> None:
            self.norm = eqx.nn.BatchNorm(6, "batch", mode="batch")

        def __call__(self, x: Any, state: Any) -> Any:
            return self.norm(x, state)

    return eqx.nn.make_with_state(Normalized)()


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": "adm"}, "unknown optimizer 'adm': did you mean 'adam'"),
    ({"optimizer": optax.adam(0.1)}, "a name for this object: give \\('a-name', object\\), or a function of"),
    ({"optimizer": optax.MultiSteps(optax.adam(0.1), 2)}, "a name for this object"),
    ({"optimizer": ("mine", 3)}, "'mine': expected a gradient transformation of optax, with init and update, not int"),
    ({"optimizer": "given: mine"}, "optimizer was a function of the caller's own \\(mine\\), which no file holds"),
    ({"optimizer": lambda schedule: 3}, "must return a gradient transformation of optax, not int"),
    ({"optimizer": lambda schedule: schedule.rate}, "the optimizer's function fails: AttributeError: .*test_models"),
    ({"optimizer": "lion", "momentum": 0.9}, "optimizer 'lion' has no momentum: leave it out"),
    ({"optimizer_params": {"ep": 0.9}}, "unknown setting of optimizer 'adam' 'ep': did you mean 'eps'"),
    ({"optimizer_params": {"learning_rate": 0.9}}, "learning_rate: it is a setting of its own: give it as lr=…"),
    ({"optimizer_params": {"b1": "much"}}, "the optimizer on these weights fails: TypeError"),
    ({"optimizer": ("mine", optax.sgd(0.1)), "lr": 0.1}, "lr is what optimizer 'given: mine' says itself"),
    ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
    ({"schedule": "exponential_decay"}, "schedule 'exponential_decay' needs decay_rate: give schedule_params"),
    ({"schedule": "linear", "schedule_params": {"end": 0}}, "unknown setting of schedule 'linear_schedule' 'end'"),
    ({"schedule": lambda step: float("nan")}, "the schedule's function must return one finite number for a step"),
    ({"schedule": "linear", "schedule_params": {"end_value": 0.0}, "warmup": 3}, "warmup goes with the schedules"),
    ({"precision": "fp16"}, "unknown precision 'fp16'"),
    ({"steps": 3, "epochs": 1}, "give steps or epochs, not both"),
    ({"device": "tpu"}, "unknown device 'tpu'"),
    ({"train_only": ("norm",)}, "train_only 'norm' looks at the layers of a PyTorch module; name arrays"),
    ({"train_only": ("third.*",)}, "train_only: 'third.\\*' matches no tensor"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[message[:30] for _, message in SETTINGS])
def test_a_setting_that_cannot_be_is_one_line(settings, message):
    with pytest.raises((BadValue, UnknownName, LotteryError), match=message) as caught:
        ready(perceptron, **settings)
    assert "\n" not in str(caught.value)


def not_finite(outputs: Any, targets: Any) -> Any:
    return outputs


MODELS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (Empty(), {}, NothingToPrune, "Empty has no parameters: there is nothing to train"),
    (({"n": np.arange(3)}, lambda p, x: x[:, :3]), {}, NothingToPrune, "no trainable floating-point parameter"),
    (normalized(), {}, BadValue, "cannot hand back the state of an Equinox module"),
    (tiny_model(), {}, BadValue, "3 \\(Dropout\\) computes something else in training mode .*: use trainer 'gd'"),
    (nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), {}, BadValue, "1 \\(BatchNorm1d\\) computes something else"),
    ((perceptron(0)[0], lambda p, x: x @ p["other"]), {}, DataError, "the model on a batch .*KeyError: 'other'"),
    (perceptron, {"loss": not_finite}, DataError, "the loss must return one number for a batch, not shape"),
    (perceptron, {"data": Data(train=(blobs(9)[0], np.arange(9)), validation=blobs(9))}, DataError, "3 outputs and"),
]


@pytest.mark.parametrize(("model", "settings", "kind", "message"), MODELS, ids=[message[:30] for *_, message in MODELS])
def test_a_model_that_cannot_be_is_one_line(model, settings, kind, message):
    with pytest.raises(kind, match=message) as caught:
        ready(model, **settings)
    assert "\n" not in str(caught.value)


def test_it_learns_from_examples_alone(tmp_path):
    with pytest.raises(
        BadValue, match="trainer 'optax' learns from examples, and .* is a fitness function: use .* 'es'"
    ):
        find_ticket({"w": np.ones(3, np.float32)}, lambda params: 0.0, trainer="optax", out=tmp_path)


def test_a_network_that_pytorch_measures_otherwise_is_not_stored():
    model = KINDS["PyTorch"]()
    setup, job = ready(model), job_of(model)
    assert isinstance(setup.trainer, OptaxTrainer) and setup.trainer.confirm is not None
    (result,) = trained(setup, job)
    point = replace(result.history[-1], validation_loss=2 * (result.history[-1].validation_loss or 1))
    with pytest.raises(RunError, match="PyTorch gives .* for the same weights: the translation .* use trainer 'gd'"):
        setup.trainer.confirm(replace(result, history=[point]))


class TestLoaders:
    def loader(self, **settings: Any) -> DataLoader[Any]:
        x, y = blobs(96)
        return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=24, **settings)

    def test_a_loader_is_read_into_memory_and_brings_its_batch_size(self):
        data = Data(train=self.loader(shuffle=True), validation=blobs(30, seed=1))
        setup = ready(perceptron, data, steps=None, epochs=3)
        assert setup.total_steps == 12 and problem_in(setup).batch_size == 24
        assert trained(setup, job_of(perceptron))[0].diverged is None

    def test_a_loss_of_whole_batches_is_refused(self):
        data = Data(train=self.loader(), validation=blobs(30, seed=1))
        with pytest.raises(DataError, match="depends on which examples share a batch of the DataLoader"):
            ready(perceptron, data, loss=lambda outputs, targets: (outputs - outputs.mean(0)).max())

    def test_what_is_drawn_anew_at_every_pass_is_refused(self):
        def noisy(batch: Any) -> Any:
            drawn = np.random.default_rng().random()
            return torch.stack([x for x, _ in batch]) + drawn, torch.stack([y for _, y in batch])

        data = Data(train=self.loader(collate_fn=noisy), validation=blobs(30, seed=1))
        with pytest.raises(DataError, match="reads the training DataLoader into memory once, and it gives something"):
            ready(perceptron, data)


def test_a_search_needs_a_name_for_an_object(tmp_path):
    with pytest.raises(BadValue, match="need a name for this object"):
        find_ticket(perceptron, DATA, trainer="optax", optimizer=optax.adam(0.1), out=tmp_path)
    assert not list(tmp_path.iterdir())
