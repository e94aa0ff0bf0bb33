"""The gradient-descent trainer: what training does to weights, masks, buffers, histories and random state."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import find_ticket
from lottery.data import Data
from lottery.data.batches import evaluation_batches, steps_per_epoch, training_batches
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.networks.sources.source import ModelSource
from lottery.state.tensors import load_state, state_of
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.augment import flip_crop
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.optimizers.learning_rate import learning_rate
from lottery.trainers.gd.optimizers.named import OPTIMIZERS
from lottery.trainers.gd.setup import setup
from pruning.errors import BadValue, DataError, DeviceError, MaskMismatch, UnknownName
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, removed, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def ready(model: Any = tiny_model, data: Data = DATA, **settings: Any) -> tuple[Setup, ModelSource]:
    parts = prepare(data, 0)
    source = torch_source(model, parts, "model")
    defaults: dict[str, Any] = {"steps": 30, "batch_size": 16}
    config = GDConfig(**(defaults | settings))
    return setup(Ask(source, parts, config, None, None, Silent(), 0)), source


def half_mask(model):
    rng = np.random.Generator(np.random.PCG64(3))
    return Mask({name: rng.random(shape) < 0.5 for name, shape in prunable(model).items()})


def train(setup, source, mask=None, budget=None, seed=0, params=None):
    params = source.initial_state(0) if params is None else params
    mask = mask or Mask.dense(prunable(source.build(0)))
    (trained,) = setup.trainer.train([Job(params, mask, seed, budget or Budget(0, 30))], frozenset())
    return trained


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_removed_weights_are_exactly_zero_and_survivors_move(optimizer, precision, clip):
    momentum: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    ready_, source = ready(
        optimizer=optimizer, lr=0.01, weight_decay=0.1, clip_norm=clip, precision=precision, **momentum
    )
    mask = half_mask(source.build(0))
    trained = train(ready_, source, mask)
    assert (removed(mask, trained.params) == 0).all()
    start = source.initial_state(0)
    moved = np.concatenate([(trained.params[name] != start[name])[keep] for name, keep in mask.items()])
    assert moved.all()


def test_training_a_masked_network_is_training_the_smaller_network():
    """A linear layer with dead input columns trains like the layer without them, bit for bit or nearly so."""
    x, y = blobs(96)
    keep = np.array([1, 1, 0, 1, 0, 1], bool)
    small = nn.Linear(4, 3)
    large = nn.Linear(6, 3)
    with torch.no_grad():
        large.weight[:, keep] = small.weight
        large.bias.copy_(small.bias)
    results = []
    for model, inputs in ((small, x[:, keep]), (large, x)):
        data = Data(train=(inputs, y), validation=(inputs, y))
        ready_, source = ready(model, data, optimizer="adam", weight_decay=0.01, clip_norm=0.5)
        mask = Mask({"weight": np.broadcast_to(keep, (3, 6)) if model is large else np.ones((3, 4), bool)})
        results.append(train(ready_, source, mask).params)
    assert np.allclose(results[1]["weight"][:, keep], results[0]["weight"], rtol=0, atol=1e-5)


def test_the_model_and_the_caller_are_untouched_and_the_second_call_works():
    """Regression: Lightning #21717, reuse of one object for a second training."""
    model = tiny_model().eval()
    before, mode = copy.deepcopy(model.state_dict()), model.training
    ready_, source = ready(model)
    one, two = train(ready_, source), train(ready_, source)
    assert_same_arrays(one.params, two.params)
    assert model.training is mode
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_buffers_train_and_start_from_the_job():
    ready_, source = ready()
    trained = train(ready_, source)
    assert trained.params["1.num_batches_tracked"] == 30
    again = train(ready_, source, params=trained.params)
    assert again.params["1.num_batches_tracked"] == 60


def test_a_frozen_layer_stays_and_a_tied_weight_stays_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight
            self.frozen = nn.Linear(6, 6).requires_grad_(False)

        def forward(self, x):
            return self.out(torch.relu(self.b(torch.relu(self.a(self.frozen(x))))))

    torch.manual_seed(0)
    model = Tied()
    ready_, source = ready(model)
    mask = half_mask(source.build(0))
    assert list(mask) == ["a.weight", "out.weight"]
    trained = train(ready_, source, mask)
    assert np.array_equal(trained.params["frozen.weight"], model.frozen.weight.numpy())
    assert (removed(mask, trained.params) == 0).all()
    assert "b.weight" not in trained.params
    load_state(model, trained.params)
    assert model.b.weight is model.a.weight


def test_buffers_that_are_not_persistent_belong_to_their_own_replicate():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("projection", torch.randn(6, 6), persistent=False)
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(x @ self.get_buffer("projection"))

    ready_, source = ready(Projected)
    one, two = (train(ready_, source, params=source.initial_state(seed)).params for seed in (0, 1))
    assert not np.array_equal(one["projection"], two["projection"])
    assert np.array_equal(two["projection"], source.initial_state(1)["projection"])


def test_a_buffer_that_the_forward_pass_makes_for_itself_does_not_stop_a_rewind(tmp_path):
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            self.register_buffer("last", x.detach().mean(0), persistent=False)
            return self.fc(x)

    for rewind in ("5", "lr"):
        ticket = find_ticket(Caching(), DATA, steps=12, levels=2, rewind=rewind, tolerance=1.0, out=tmp_path)
        assert "last" not in ticket.params


def test_a_frozen_batch_norm_keeps_its_statistics():
    model = tiny_model()
    model.train()
    model[1].eval()  # pyright: ignore[reportIndexIssue]
    ready_, source = ready(model)
    assert train(ready_, source).params["1.num_batches_tracked"] == 0


def test_history_has_an_evaluation_every_k_steps_and_at_the_end():
    ready_, source = ready(eval_every=8)
    history = train(ready_, source).history
    assert [point.step for point in history] == [8, 16, 24, 30]
    assert history[-1].validation_loss is not None and 0 <= (history[-1].validation or -1) <= 1
    assert history[-1].test is not None


def test_without_a_test_part_there_is_no_test_metric():
    ready_, source = ready(data=Data(train=blobs(), validation=blobs(30)))
    point = train(ready_, source).history[-1]
    assert point.test is None and point.test_loss is None and point.validation is not None


def test_snapshots_are_the_weights_after_that_many_steps():
    ready_, source = ready()
    trained = train(ready_, source, budget=Budget(0, 30, (0, 12)))
    assert_same_arrays(trained.snapshots[0], source.initial_state(0))
    assert_same_arrays(trained.snapshots[12], train(ready_, source, budget=Budget(0, 12)).params)


def test_training_from_step_k_sees_the_batches_and_rates_of_step_k():
    linear = nn.Linear(6, 3)
    ready_, source = ready(linear, optimizer="sgd", schedule="cosine", lr=0.5, warmup=5)
    whole = train(ready_, source, budget=Budget(0, 30, (12,)))
    rest = train(ready_, source, budget=Budget(12, 30), params=whole.snapshots[12])
    assert_same_arrays(rest.params, whole.params)


def test_a_loss_that_is_not_finite_ends_the_training_with_that_reason():
    ready_, source = ready(optimizer="sgd", lr=1e30, eval_every=5)
    trained = train(ready_, source)
    assert trained.diverged == "the loss is not finite at step 5"
    assert [point.step for point in trained.history] == [5]


def test_an_unmet_need_is_an_error():
    ready_, source = ready()
    job = Job(source.initial_state(0), Mask({"0.weight": np.ones((8, 6))}), 0, Budget(0, 1))
    with pytest.raises(BadValue, match="does not provide gradients"):
        list(ready_.trainer.train([job], frozenset({"gradients"})))


def test_epochs_count_steps():
    assert ready(steps=None, epochs=2.5)[0].total_steps == 15
    assert ready()[0].steps_per_epoch == 6


class TestBatches:
    def test_an_epoch_sees_every_example_once(self):
        part = prepare(DATA, 0).train
        seen = torch.cat([x for x, _ in training_batches(part, 16, 0, 0, 6)])
        assert sorted(seen[:, 0].tolist()) == sorted(part.inputs[:, 0].tolist())  # pyright: ignore

    def test_another_epoch_and_another_seed_have_another_order(self):
        part = prepare(DATA, 0).train
        first, second = ([y.tolist() for _, y in training_batches(part, 16, 0, a, a + 6)] for a in (0, 6))
        other = [y.tolist() for _, y in training_batches(part, 16, 1, 0, 6)]
        assert first != second and first != other

    def test_the_remainder_is_dropped_and_a_small_set_is_one_batch(self):
        part = prepare(DATA, 0).train
        assert steps_per_epoch(part, 40) == 2
        assert [len(x) for x, _ in training_batches(part, 40, 0, 0, 4)] == [40, 40, 40, 40]
        assert [len(x) for x, _ in training_batches(part, 500, 0, 0, 2)] == [96, 96]

    def test_evaluation_sees_everything_in_order(self):
        part = prepare(DATA, 0).train
        assert torch.equal(torch.cat([y for _, y in evaluation_batches(part, 40)]), part.targets)  # pyright: ignore


class TestDataLoader:
    def loader(self, seed=None, **options):
        x, y = blobs(96)
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        return DataLoader(dataset, batch_size=16, shuffle=True, generator=generator, **options)

    @pytest.mark.parametrize("seed", [None, 5])
    def test_works_as_given_reproducibly_and_is_left_as_it_was(self, seed):
        loader = self.loader(seed)
        data = Data(train=loader, validation=blobs(30, seed=1))
        before = loader.generator.get_state() if loader.generator is not None else None
        ready_, source = ready(data=data)
        one, two = train(ready_, source), train(ready_, source)
        assert_same_arrays(one.params, two.params)
        assert np.isfinite(one.history[-1].train_loss or np.nan)
        if before is not None and loader.generator is not None:
            assert torch.equal(loader.generator.get_state(), before)

    def test_epochs_differ_and_steps_can_start_anywhere(self):
        part = prepare(Data(train=self.loader(), validation=blobs(30)), 0).train
        with torch.random.fork_rng():
            steps = [y.tolist() for _, y in training_batches(part, 0, 3, 0, 12)]
            later = [y.tolist() for _, y in training_batches(part, 0, 3, 4, 12)]
        assert steps[:6] != steps[6:] and later == steps[4:]

    def test_a_batch_of_another_kind_is_handed_on_whole_with_or_without_a_loss_and_a_metric(self):
        def collate(items):
            return {"x": torch.stack([x for x, _ in items]), "label": torch.stack([y for _, y in items])}

        class Dict(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 3)

            def forward(self, x, label):
                return {"loss": nn.functional.cross_entropy(self.fc(x), label), "logits": self.fc(x)}

        loader = self.loader(collate_fn=collate)
        parts = prepare(Data(train=loader, validation=loader), 0)
        source = torch_source(Dict(), parts, "model")
        ask = Ask(
            source,
            parts,
            GDConfig(steps=30, lr=0.05),
            lambda outputs, batch: outputs["loss"],
            lambda outputs, batch: (outputs["logits"].argmax(1) == batch["label"]).float().mean(),
            Silent(),
            0,
        )
        assert (train(setup(ask), source).history[-1].validation or 0) > 0.8
        assert setup(Ask(source, parts, GDConfig(), None, None, Silent(), 0)).metric.name == "loss"

    def test_whether_there_is_a_test_loader_changes_no_weight(self):
        """Test data never influences anything, random numbers included."""
        loader = DataLoader(TensorDataset(*map(torch.from_numpy, blobs(30, seed=2))), batch_size=7)
        with_test = ready(data=Data(train=blobs(96), validation=blobs(30), test=loader), eval_every=3)
        without = ready(data=Data(train=blobs(96), validation=blobs(30)), eval_every=5)
        assert_same_arrays(train(*with_test).params, train(*without).params)


class TestLearningRate:
    def test_schedules_by_hand(self):
        milestones = GDConfig(lr=1.0, schedule="milestones", milestones=(10, 20), gamma=0.5)
        assert [learning_rate(s, 30, milestones) for s in (0, 9, 10, 20, 29, 45)] == [1, 1, 0.5, 0.25, 0.25, 0.25]
        cosine = GDConfig(lr=2.0, schedule="cosine")
        assert learning_rate(0, 10, cosine) == 2.0
        assert learning_rate(5, 10, cosine) == pytest.approx(1.0)
        assert learning_rate(9, 10, cosine) == learning_rate(99, 10, cosine) > 0
        warm = GDConfig(lr=1.0, warmup=4)
        assert [learning_rate(s, 10, warm) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"optimizer": "adma"}, UnknownName, "did you mean 'adam'"),
        ({"schedule": "cosin"}, UnknownName, "did you mean 'cosine'"),
        ({"precision": "fp8"}, UnknownName, "precision"),
        ({"augment": "flip"}, UnknownName, "flip-crop"),
        ({"lr": 0.0}, BadValue, "lr must be more than 0"),
        ({"batch_size": 0}, BadValue, "batch_size"),
        ({"steps": -1}, BadValue, "steps"),
        ({"momentum": -0.1}, BadValue, "momentum"),
        ({"nesterov": True}, BadValue, "nesterov needs a momentum"),
        ({"schedule": "milestones"}, BadValue, "needs milestones"),
        ({"steps": 1, "epochs": 1.0}, BadValue, "not both"),
    ],
)
def test_wrong_settings_are_errors(settings, error, message):
    with pytest.raises(error, match=message):
        GDConfig(**settings)


@pytest.mark.parametrize(
    ("device", "message"), [("cuda:99", "no CUDA|has .* CUDA"), ("tpu", "unknown device"), ("meta", "not supported")]
)
def test_devices_that_are_not_there(device, message):
    with pytest.raises(DeviceError, match=message):
        ready(device=device)


class TestFit:
    def test_a_model_for_other_inputs_is_one_clear_line(self):
        with pytest.raises(DataError, match=r"the model on .* \(Linear, inputs \(8, 6\)\) fails: RuntimeError: .*mat1"):
            ready(nn.Linear(5, 3))

    def test_labels_beyond_the_outputs(self):
        with pytest.raises(DataError, match="the model has 2 outputs and the data has label 2"):
            ready(nn.Linear(6, 2))

    def test_a_loss_or_a_metric_that_fails_is_named(self):
        parts = prepare(DATA, 0)
        source = torch_source(nn.Linear(6, 3), parts, "model")
        cases = [
            (nn.CrossEntropyLoss(reduction="none"), None, r"the loss on .* fails: RuntimeError"),
            (None, lambda outputs, labels: outputs.foo, r"the metric fails: AttributeError.*test_gd_trainer.py, line"),
            (
                None,
                lambda outputs, labels: outputs,
                r"the metric must return one number .*\(\d+, 3\)",
            ),
        ]
        for loss, metric, message in cases:
            with pytest.raises(DataError, match=message):
                setup(Ask(source, parts, GDConfig(), loss, metric, Silent(), 0))

    def test_labels_below_zero_only_matter_to_the_default_loss(self):
        x, y = blobs(96)
        with pytest.raises(DataError, match="training labels out of range: the smallest is -1"):
            ready(nn.Linear(6, 3), Data(train=(x, y - 1)))

    def test_a_metric_and_a_loss_of_ones_own_take_labels_of_any_range(self, tmp_path):
        x, y = blobs(96)
        ticket = find_ticket(
            nn.Linear(6, 1),
            Data(train=(x, y + 40)),
            loss=lambda outputs, labels: ((outputs[:, 0] - labels.float()) ** 2).mean(),
            metric=lambda outputs, labels: -float((outputs[:, 0] - labels).abs().mean()),
            steps=10,
            levels=1,
            tolerance=1e9,
            out=tmp_path,
        )
        assert ticket.info["validation"] < 0

    def test_accuracy_of_labels_of_another_shape_is_an_error_and_not_a_number(self):
        x, y = (torch.from_numpy(a) for a in blobs(96))
        loader = DataLoader(TensorDataset(x, y[:, None]), batch_size=16)
        parts = prepare(Data(train=loader, validation=loader), 0)
        source = torch_source(nn.Linear(6, 3), parts, "model")
        loss = lambda outputs, labels: nn.functional.cross_entropy(outputs, labels.squeeze(1))  # noqa: E731
        with pytest.raises(DataError, match=r"accuracy: outputs of shape \(16, 3\) and labels of shape \(16, 1\)"):
            setup(Ask(source, parts, GDConfig(), loss, None, Silent(), 0))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_of_another_precision_gets_inputs_of_its_own(self, dtype):
        ready_, source = ready(tiny_model().to(dtype))
        trained = train(ready_, source, half_mask(source.build(0)))
        assert trained.diverged is None
        assert state_of(source.build(0))["0.weight"].dtype == trained.params["0.weight"].dtype

    def test_regression_against_another_shape(self):
        x, _ = blobs(96)
        with pytest.raises(DataError, match=r"returns shape \(8, 3\) for labels of shape \(8,\)"):
            ready(nn.Linear(6, 3), Data(train=(x, x[:, 0])))


def test_regression_binary_and_their_metrics():
    x, _ = blobs(96)
    ready_, source = ready(nn.Linear(6, 1), Data(train=(x, x[:, 0] * 2)), lr=0.05)
    assert not ready_.metric.higher_is_better
    assert (train(ready_, source).history[-1].validation or 9) < 2
    ready_, source = ready(nn.Linear(6, 1), Data(train=(x, x[:, 0] > 1)), lr=0.05)
    assert (train(ready_, source).history[-1].validation or 0) > 0.8


def test_flip_crop_moves_images_by_at_most_four_pixels_and_keeps_channels_together():
    torch.manual_seed(0)
    image = torch.zeros(64, 2, 12, 12)
    image[:, 0, 6, 5], image[:, 1, 6, 5] = 1.0, 2.0
    out = flip_crop(image)
    assert torch.equal(out[:, 0] * 2, out[:, 1])
    where = out[:, 0].nonzero()
    assert len(where) == 64
    assert (where[:, 1] - 6).abs().max() == 4
    assert {5 - 4, 6 + 4} <= set(where[:, 2].tolist()) <= set(range(1, 11))
    with pytest.raises(DataError, match="needs images"):
        flip_crop(torch.zeros(3, 4))


class TestState:
    def test_bfloat16_round_trips(self):
        model = nn.Linear(3, 2).to(torch.bfloat16)
        other = nn.Linear(3, 2).to(torch.bfloat16)
        load_state(other, state_of(model))
        assert torch.equal(model.weight, other.weight)

    def test_what_does_not_fit_is_named(self):
        state = state_of(nn.Linear(3, 2))
        with pytest.raises(MaskMismatch, match="'bias' is not in the stored weights"):
            load_state(nn.Linear(3, 2), {"weight": state["weight"]})
        with pytest.raises(MaskMismatch, match=r"\(2, 4\) in the model and \(2, 3\)"):
            load_state(nn.Linear(4, 2), state)
        with pytest.raises(MaskMismatch, match="no tensor 'weight'"):
            load_state(nn.Sequential(nn.Linear(3, 2)), state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_trains_and_comes_back_to_the_host():
    ready_, source = ready(tiny_model().cuda(), device="cuda")
    assert all(isinstance(value, np.ndarray) for value in train(ready_, source).params.values())
