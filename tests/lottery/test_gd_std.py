"""The standard deviation of a trained weight: each estimator against an independent computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import find_ticket
from lottery.data import Data
from lottery.data.batches import training_batches
from lottery.data.parts import Tensors, prepare
from lottery.networks.objectives.metric import Metric
from lottery.networks.sources.choosing import torch_source
from lottery.runs.directory import RunDirectory
from lottery.state.tensors import load_state
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.std import ESTIMATORS, PRIOR_PRECISION
from pruning.criteria import get_criterion
from pruning.errors import BadValue, UnknownName
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, removed, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1))
STEPS = 20
WIDE = PRIOR_PRECISION**-0.5


def ready(model: Any = tiny_model, data: Data = DATA, loss: Any = None, **settings: Any) -> tuple[Setup, Any]:
    parts = prepare(data, 0)
    source = torch_source(model, parts, "model")
    defaults: dict[str, Any] = {"steps": STEPS, "batch_size": 16}
    # what a model returns may be its loss, of which there is one for each batch
    metric = Metric("nothing", lambda outputs, targets: 0.0, additive=True) if loss is not None else None
    return setup(Ask(source, parts, GDConfig(**(defaults | settings)), loss, metric, Silent(), 0)), source


def half_mask(model: nn.Module) -> Mask:
    rng = np.random.Generator(np.random.PCG64(3))
    return Mask({name: rng.random(shape) < 0.5 for name, shape in prunable(model).items()})


def train(
    ready_: tuple[Setup, Any],
    mask: Mask | None = None,
    budget: Budget | None = None,
    needs: frozenset[str] = frozenset({"std"}),
) -> Trained:
    setup_, source = ready_
    mask = mask or Mask.dense(prunable(source.build(0)))
    job = Job(source.initial_state(0), mask, 7, budget or Budget(0, STEPS))
    (trained,) = setup_.trainer.train([job], needs)
    return trained


def std_of(trained: Trained) -> Mapping[str, np.ndarray[Any, Any]]:
    assert trained.std is not None
    return trained.std


def with_dead_input(n: int = 96, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = blobs(n, seed=seed)
    x[:, 4] = 0
    return x, y


@pytest.mark.parametrize("source", ESTIMATORS)
class TestEveryEstimator:
    def test_gives_float32_of_the_masks_shapes_and_0_for_removed_weights(self, source):
        ready_ = ready(std=source)
        mask = half_mask(ready_[1].build(0))
        std = std_of(train(ready_, mask))
        assert {name: value.shape for name, value in std.items()} == mask.shapes()
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in std.values())
        assert (removed(mask, std) == 0).all()
        assert all((std[name][keep] > 0).all() for name, keep in mask.items())

    def test_changes_no_bit_of_the_training(self, source):
        ready_ = ready(std=source, weight_decay=0.01)
        budget = Budget(0, STEPS, (5, STEPS))
        asked, not_asked = train(ready_, budget=budget), train(ready_, budget=budget, needs=frozenset())
        assert_same_arrays(asked.params, not_asked.params)
        assert_same_arrays(asked.snapshots[5], not_asked.snapshots[5])
        assert list(asked.history) == list(not_asked.history)
        assert not_asked.std is None

    def test_the_same_training_gives_the_same_bits(self, source):
        ready_ = ready(std=source)
        assert_same_arrays(std_of(train(ready_)), std_of(train(ready_)))

    @pytest.mark.parametrize("optimizer", [{"optimizer": "adamw"}, {"optimizer": "sgd", "lr": 0.05}])
    def test_a_dead_input_is_pruned_first(self, source, optimizer):
        """Its weights get no gradient: decay moves them a little, or nothing does. Neither makes them certain."""
        if source == "adam" and optimizer["optimizer"] == "sgd":
            pytest.skip("a combination that the configuration refuses")
        data = Data(train=with_dead_input(), validation=with_dead_input(30, 1))
        for decay in (0.0, 0.1):
            ready_ = ready(nn.Linear(6, 3), data, std=source, weight_decay=decay, **optimizer)
            trained = train(ready_)
            assert np.allclose(std_of(trained)["weight"][:, 4], WIDE)
            mask = Mask.dense({"weight": (3, 6)})
            scores = get_criterion("snr").score(trained, Job(trained.params, mask, 0, Budget(0, 0)))["weight"]
            assert scores[:, 4].max() < np.delete(scores, 4, axis=1).min()

    def test_a_diverged_training_has_none(self, source):
        optimizer: dict[str, Any] = {} if source == "adam" else {"optimizer": "sgd"}
        trained = train(ready(std=source, lr=1e30, eval_every=5, **optimizer))
        assert trained.diverged is not None and trained.std is None

    def test_searches_end_to_end(self, source, tmp_path):
        ticket = find_ticket(
            tiny_model,
            DATA,
            criterion="snr",
            std=source,
            levels=2,
            steps=12,
            batch_size=16,
            tolerance=1.0,
            out=tmp_path,
        )
        assert ticket.search is not None
        run = RunDirectory(ticket.search.run)
        assert [run.read_mask(0, level).kept for level in range(3)] == [72, 58, 46]
        for level in (0, 1):
            trained, mask, after = run.read_trained(0, level), run.read_mask(0, level), run.read_mask(0, level + 1)
            std = std_of(trained)
            ratio = {
                name: np.abs(trained.params[name].astype(float)) / np.where(mask[name], std[name], 1) for name in std
            }
            kept = np.concatenate([ratio[name][keep] for name, keep in after.items()])
            dropped = np.concatenate([ratio[name][mask[name] & ~after[name]] for name in mask])
            assert kept.min() >= dropped.max()

    def test_a_tied_weight_counts_once(self, source):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
                self.b.weight = self.a.weight

            def forward(self, x):
                return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))

        assert list(std_of(train(ready(Tied, std=source)))) == ["a.weight", "out.weight"]


class TestSwag:
    @pytest.mark.parametrize(("window", "count"), [(0.5, 10), (1.0, 20), (0.1, 2)])
    def test_is_the_standard_deviation_of_the_iterates(self, window, count):
        trained = train(ready(std="swag", std_window=window), budget=Budget(0, STEPS, tuple(range(1, STEPS + 1))))
        for name, std in std_of(trained).items():
            iterates = [trained.snapshots[step][name].astype(float) for step in range(STEPS - count + 1, STEPS + 1)]
            assert np.allclose(std, np.std(iterates, axis=0), rtol=1e-5, atol=1e-6)

    def test_the_window_lies_within_this_training(self):
        trained = train(ready(std="swag"), budget=Budget(12, STEPS, tuple(range(12, STEPS + 1))))
        iterates = [trained.snapshots[step]["4.weight"].astype(float) for step in range(17, STEPS + 1)]
        assert np.allclose(std_of(trained)["4.weight"], np.std(iterates, axis=0), rtol=1e-5, atol=1e-6)

    def test_small_moves_of_large_weights_keep_their_digits(self):
        """Regression against a mean of squares less a squared mean, which gives 0 or NaN here."""
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        with torch.no_grad():
            model.weight += 100
        trained = train(ready(model, std="swag", lr=1e-3), budget=Budget(0, STEPS, tuple(range(1, STEPS + 1))))
        iterates = [trained.snapshots[step]["weight"].astype(float) for step in range(11, STEPS + 1)]
        assert np.allclose(std_of(trained)["weight"], np.std(iterates, axis=0), rtol=1e-2)

    def test_one_iterate_has_no_spread(self):
        with pytest.raises(BadValue, match="needs 2 steps or more.*std_window 0.05 of 20 steps gives 1"):
            train(ready(std="swag", std_window=0.05))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_of_another_precision(self, dtype):
        std = std_of(train(ready(tiny_model().to(dtype), std="swag", lr=0.05)))
        assert all(np.isfinite(value).all() and (value > 0).all() for value in std.values())


class TestAdam:
    @pytest.mark.parametrize("optimizer", ["adam", "adamw"])
    def test_is_adams_second_moment_recomputed(self, optimizer):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        ready_ = ready(model, std="adam", optimizer=optimizer)
        trained = train(ready_, budget=Budget(0, STEPS, tuple(range(STEPS))))
        part = prepare(DATA, 0).train
        moment = np.zeros((3, 6))
        for step, (x, y) in enumerate(training_batches(part, 16, 7, 0, STEPS)):
            load_state(model, trained.snapshots[step])
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), [model.weight])
            moment = 0.999 * moment + 0.001 * gradient.numpy().astype(float) ** 2
        expected = 1 / np.sqrt(96 * moment / (1 - 0.999**STEPS) + PRIOR_PRECISION)
        assert np.allclose(std_of(trained)["weight"], expected, rtol=1e-4)


def by_hand(model: nn.Module, x: torch.Tensor, y: torch.Tensor, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the empirical Fisher diagonal, with one backward pass for each example."""
    model.eval()
    weights = [dict(model.named_parameters())[name] for name in names]
    total = [np.zeros(tuple(weight.shape)) for weight in weights]
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for value, weight in zip(total, weights, strict=True):
            value += weight.grad.numpy().astype(float) ** 2 if weight.grad is not None else 0.0
    return {name: value / len(x) for name, value in zip(names, total, strict=True)}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.rnn(x.reshape(-1, 3, 2))[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.TransformerEncoderLayer(3, 1, 4, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.attention(x.reshape(-1, 2, 3)).flatten(1))


class Branching(nn.Module):
    """Looks at values: no transform can trace it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.a(x) + self.b(x) if float(x[0, 0]) > 0 else self.a(x)


class Clinging(nn.Module):
    """Holds on to its weight outside of its parameters: a transform would find a gradient of 0, silently."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.held = [self.fc.weight]

    def forward(self, x):
        return F.linear(x, self.held[0], self.fc.bias)


class TestFisher:
    @pytest.mark.parametrize("make", [tiny_model, Recurrent, Attending, Branching, Clinging])
    def test_is_a_loop_over_single_examples(self, make):
        ready_ = ready(make, std="fisher")
        trained = train(ready_)
        model = ready_[1].build(0)
        load_state(model, trained.params)
        if isinstance(model, Clinging):
            model.held = [model.fc.weight]
        part = prepare(DATA, 0).train
        assert isinstance(part, Tensors)
        fisher = by_hand(model, part.inputs, part.targets, list(std_of(trained)))
        for name, std in std_of(trained).items():
            assert np.allclose(std, 1 / np.sqrt(96 * fisher[name] + PRIOR_PRECISION), rtol=1e-3), name

    def test_looks_at_no_more_examples_than_it_may_and_at_others_with_another_seed(self):
        calls = []

        def loss(outputs, targets):
            calls.append(len(targets))
            return F.cross_entropy(outputs, targets)

        ready_ = ready(Branching, loss=loss, std="fisher", std_examples=5)
        calls.clear()
        std = std_of(train(ready_))
        assert calls.count(1) == 5 + 1  # one more where the transform is tried
        job = Job(ready_[1].initial_state(0), Mask.dense(prunable(Branching())), 8, Budget(0, 2))
        (other,) = ready_[0].trainer.train([job], frozenset({"std"}))
        assert not np.array_equal(std_of(other)["a.weight"], std["a.weight"])

    def test_a_data_loader_is_iterated_as_given_and_left_as_it_was(self):
        x, y = (torch.from_numpy(a) for a in blobs(96))
        generator = torch.Generator().manual_seed(5)
        loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, generator=generator)
        ready_ = ready(nn.Linear(6, 3), Data(train=loader, validation=blobs(30, seed=1)), std="fisher")
        before = generator.get_state()
        trained = train(ready_)
        assert torch.equal(generator.get_state(), before)
        model = nn.Linear(6, 3)
        load_state(model, trained.params)
        expected = 1 / np.sqrt(96 * by_hand(model, x, y, ["weight"])["weight"] + PRIOR_PRECISION)
        assert np.allclose(std_of(trained)["weight"], expected, rtol=1e-3)

    def test_batches_of_another_kind(self):
        def collate(items):
            return {"x": torch.stack([x for x, _ in items]), "label": torch.stack([y for _, y in items])}

        class Dict(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 3)

            def forward(self, x, label):
                return F.cross_entropy(self.fc(x), label)

        x, y = (torch.from_numpy(a) for a in blobs(96))
        loader = DataLoader(TensorDataset(x, y), batch_size=16, collate_fn=collate)
        ready_ = ready(Dict(), Data(train=loader, validation=loader), loss=lambda outputs, _: outputs, std="fisher")
        trained = train(ready_)
        model = Dict()
        load_state(model, trained.params)
        expected = 1 / np.sqrt(96 * by_hand(model.fc, x, y, ["weight"])["weight"] + PRIOR_PRECISION)
        assert np.allclose(std_of(trained)["fc.weight"], expected, rtol=1e-3)

    def test_a_loss_that_needs_a_batch_is_one_clear_line(self):
        def contrastive(outputs, targets):
            if len(targets) < 2:
                raise ValueError("no pair\nin this batch")
            return F.cross_entropy(outputs, targets)

        with pytest.raises(BadValue, match=r"the loss of single examples, which fails \(no pair\); use 'swag'$"):
            train(ready(nn.Linear(6, 3), loss=contrastive, std="fisher"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"std": "swga"}, UnknownName, "unknown std 'swga': did you mean 'swag'"),
        ({"std": "adam", "optimizer": "sgd"}, BadValue, "optimizer 'sgd' lacks; use 'fisher'"),
        ({"std_window": 0.0}, BadValue, "std_window must be a fraction of the steps"),
        ({"std_window": 50.0}, BadValue, "at most 1, not 50"),
        ({"std_examples": 0}, BadValue, "std_examples must be more than 0"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        GDConfig(**settings)
    assert "\n" not in str(caught.value)
