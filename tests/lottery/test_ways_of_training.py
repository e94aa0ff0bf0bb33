"""Optimizers, schedules and ways of stepping: any that PyTorch has or a caller makes, and a removed weight stays 0."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, AdamW, Muon, RMSprop, SparseAdam
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from lottery import ablate, find_ticket, train_ticket
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.evaluation import evaluate
from lottery.networks.sources.choosing import torch_source
from lottery.networks.sources.source import ModelSource
from lottery.state.tensors import load_state
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.averaging import Average
from lottery.trainers.gd.optimizers.given import CLASSES
from lottery.trainers.gd.optimizers.rates import CLASSES as SCHEDULERS
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.disk.files import read_json
from pruning.errors import BadValue, ConfigMismatch, RunError, UnknownName, Untrusted
from pruning.jobs import Budget, Evaluation, Job, Trained
from pruning.mask import Mask
from pruning.settings.patience import PATIENCE_ENDED, Patience
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, removed, search, shown, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def ready(model: Any = tiny_model, **settings: Any) -> tuple[Setup, ModelSource]:
    parts = prepare(DATA, 0)
    source = torch_source(model, parts, "model")
    config = GDConfig(**{"steps": 12, "batch_size": 16, **settings})
    return setup(Ask(source, parts, config, None, None, Silent(), 0)), source


def half_mask(source: ModelSource) -> Mask:
    rng = np.random.Generator(np.random.PCG64(3))
    return Mask({name: rng.random(shape) < 0.5 for name, shape in prunable(source.build(0)).items()})


def train(made: tuple[Setup, ModelSource], budget: Budget | None = None, needs: tuple[str, ...] = ()) -> Trained:
    ready_, source = made
    job = Job(source.initial_state(0), half_mask(source), 0, budget or Budget(0, 12))
    (trained,) = ready_.trainer.train([job], frozenset(needs))
    return trained


def split(params: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Matrices to Muon, everything else to AdamW: the usual way to use Muon."""
    return [Muon([p for p in params if p.ndim == 2], lr=0.02), AdamW([p for p in params if p.ndim != 2], lr=0.01)]


def groups(model: nn.Module) -> torch.optim.Optimizer:
    """Biases without decay, by name."""
    named = dict(model.named_parameters())
    biases = [p for name, p in named.items() if name.endswith("bias")]
    others = [p for name, p in named.items() if not name.endswith("bias")]
    return SGD([{"params": biases, "weight_decay": 0.0}, {"params": others, "lr": 0.05}], lr=0.1, momentum=0.9)


WITHOUT_OTHERS = sorted(CLASSES.keys() - {"muon", "sparseadam"})


@pytest.mark.parametrize("optimizer", [*WITHOUT_OTHERS, split, groups], ids=shown)
@pytest.mark.parametrize("ways", [{}, {"clip_norm": 0.1, "accumulate": 2, "ema": 0.9}], ids=["plain", "all"])
def test_removed_weights_stay_exactly_0_under_every_optimizer_and_survivors_move(optimizer, ways):
    made = ready(optimizer=optimizer, **ways)
    trained = train(made)
    assert trained.diverged is None
    assert (removed(half_mask(made[1]), trained.params) == 0).all()
    start = made[1].initial_state(0)
    moved = [(trained.params[name] != start[name])[keep] for name, keep in half_mask(made[1]).items()]
    assert np.concatenate(moved).mean() > 0.5


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", split, functools.partial(SGD, lr=0.1)], ids=shown)
def test_fp16_scales_gradients_and_keeps_removed_weights_at_0(optimizer):
    made = ready(optimizer=optimizer, precision="fp16", clip_norm=1.0)
    trained = train(made)
    assert trained.diverged is None
    assert (removed(half_mask(made[1]), trained.params) == 0).all()
    assert all(array.dtype == np.float32 for array in trained.params.values() if array.dtype.kind == "f")


def test_a_class_and_its_name_are_one_setting():
    assert GDConfig(optimizer=RMSprop) == GDConfig(optimizer="RMSprop") == GDConfig(optimizer="rmsprop")
    assert GDConfig(schedule=OneCycleLR) == GDConfig(schedule="onecyclelr")


def test_settings_of_an_optimizer_reach_it():
    plain, other = (
        train(ready(optimizer="adam")),
        train(ready(optimizer="adam", optimizer_params={"betas": (0.5, 0.9)})),
    )
    assert (plain.params["0.weight"] != other.params["0.weight"]).any()
    same = train(ready(optimizer=lambda params: torch.optim.Adam(params, lr=2e-3, betas=(0.5, 0.9))))
    np.testing.assert_allclose(same.params["0.weight"], other.params["0.weight"], atol=1e-6)


def test_adamw_with_settings_of_its_own_has_the_decay_that_is_asked_for_and_no_other():
    plain, same = train(ready(optimizer="adamw")), train(ready(optimizer="adamw", optimizer_params={"eps": 1e-8}))
    np.testing.assert_allclose(same.params["0.weight"], plain.params["0.weight"], atol=1e-6)


FOREIGN = nn.Parameter(torch.zeros(3))


def fails(params):
    raise ZeroDivisionError("nothing to divide")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "muon"}, "Muon only supports 2D.*optimizer=lambda params"),
        ({"optimizer": "sparseadam"}, "does not support dense gradients"),
        ({"optimizer": "rmsprop", "nesterov": True, "momentum": 0.9}, "has no nesterov"),
        ({"optimizer": "adam", "optimizer_params": {"lr": 1.0}}, "a setting of its own"),
        ({"optimizer": "rmsprop", "optimizer_params": {"alpha": -1.0}}, "Invalid alpha"),
        ({"optimizer": fails}, r"ZeroDivisionError: nothing to divide \(.*test_ways_of_training.py, line \d+\)"),
        ({"optimizer": lambda params: None}, "must return a torch.optim.Optimizer.*NoneType"),
        ({"optimizer": lambda params: []}, "an empty list"),
        ({"optimizer": lambda params: SGD([FOREIGN])}, "other parameters"),
        ({"optimizer": lambda params: SGD(params[:1])}, "would not be trained"),
        ({"optimizer": lambda params: [SGD(params), SGD(params[:1])]}, "in it twice"),
        ({"optimizer": lambda params: SGD(params), "lr": 0.3}, "lr is what the optimizer's function says itself"),
        ({"optimizer": "given: make"}, "was a function of the caller's own"),
        ({"optimizer": LBFGS, "precision": "fp16"}, "fp16 cannot"),
        ({"optimizer": LBFGS, "moves": "rigl"}, "moves need plain steps"),
        ({"optimizer": "no_such_module_here:make"}, "there is no module"),
        ({"optimizer": "rmsprop", "std": "adam"}, "second moment, which optimizer 'rmsprop' lacks"),
        ({"schedule": "StepLR"}, "needs step_size"),
        ({"schedule": "PolynomialLR"}, "needs total_iters"),
        ({"schedule": "LambdaLR"}, "schedule=lambda optimizer, steps: LambdaLR"),
        ({"schedule": "OneCycleLR", "warmup": 3}, "warmup goes with the schedules"),
        (
            {"schedule": "CyclicLR", "schedule_params": {"base_lr": 0.1, "max_lr": 0.2}, "optimizer": "rprop"},
            "momentum",
        ),
        ({"schedule": "cosine", "schedule_params": {"T_max": 3}}, "schedule 'cosine' has none"),
        ({"schedule": lambda optimizer, steps: 3}, "must return a scheduler"),
        ({"schedule": lambda optimizer, steps: 1 / 0}, "ZeroDivisionError"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a fraction"),
        ({"ema": 1.0}, "ema must be a decay"),
        ({"accumulate": 0}, "accumulate must be 1 or more"),
        ({"patience": 0}, "patience must be 1 or more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_one_line_before_anything_is_trained(settings, message):
    with pytest.raises((BadValue, UnknownName), match=message) as caught:
        ready(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "near"), [("optimizer", "rmsprp", "rmsprop"), ("schedule", "StepL", "StepLR")]
)
def test_a_misspelled_name_gets_the_nearest(key, value, near):
    with pytest.raises(UnknownName, match=f"did you mean '{near}'"):
        GDConfig(**{key: value})


def rates_of(schedule: Any, budget: Budget, **settings: Any) -> list[float]:
    """The learning rate of every step."""
    seen: list[float] = []

    class Watched(SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append(self.param_groups[0]["lr"])
            return super().step()

    made = ready(optimizer=lambda params: Watched(params, lr=0.1, momentum=0.9), schedule=schedule, **settings)
    seen.clear()  # a step was tried before
    train(made, budget)
    return seen


SCHEDULES: list[Any] = [
    ("OneCycleLR", {}),
    ("CosineAnnealingLR", {}),
    ("StepLR", {"step_size": 4}),
    ("MultiStepLR", {"milestones": (3, 7)}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("LinearLR", {"total_iters": 12}),
    (lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1 - step / steps), {}),
    ("cosine", {}),
]


@pytest.mark.parametrize(("schedule", "params"), SCHEDULES, ids=shown)
def test_a_training_that_begins_at_step_k_has_the_rates_of_step_k_and_fine_tuning_those_of_the_end(schedule, params):
    whole = rates_of(schedule, Budget(0, 12), schedule_params=params)
    assert len(set(whole)) > 1
    assert rates_of(schedule, Budget(5, 12), schedule_params=params) == whole[5:]
    assert set(rates_of(schedule, Budget(12, 15), schedule_params=params)) == {whole[-1]}


def test_schedulers_of_pytorch_are_stepped_as_in_a_loop_of_ones_own():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = OneCycleLR(optimizer, 0.1, 12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates_of("OneCycleLR", Budget(0, 12)) == expected


def test_every_scheduler_of_pytorch_is_known_by_name():
    assert {StepLR, ReduceLROnPlateau, LambdaLR} <= set(SCHEDULERS.values())
    assert all(issubclass(kind, LRScheduler) for kind in SCHEDULERS.values())


def test_reduce_on_plateau_follows_the_validation_loss():
    flat = {"schedule_params": {"patience": 0, "threshold": 1e9, "factor": 0.5}, "eval_every": 3}
    assert rates_of("ReduceLROnPlateau", Budget(0, 12), **flat) == [0.1] * 3 + [0.05] * 3 + [0.025] * 3 + [0.0125] * 3


@pytest.mark.parametrize("rewind", ["5", "none"])
def test_reduce_on_plateau_is_refused_where_a_training_begins_in_the_middle(rewind, tmp_path):
    with pytest.raises(BadValue, match="follows the validation loss"):
        search(tmp_path, tiny_model, DATA, schedule="ReduceLROnPlateau", rewind=rewind)


def test_accumulated_batches_are_one_larger_batch():
    """Without batch norm and dropout, the mean of two gradients is the gradient of both batches."""
    linear = functools.partial(nn.Linear, 6, 3)
    two = train(ready(linear, batch_size=16, accumulate=2, optimizer="sgd", lr=0.1))
    one = train(ready(linear, batch_size=32, optimizer="sgd", lr=0.1))
    np.testing.assert_allclose(two.params["weight"], one.params["weight"], atol=1e-6)
    assert two.history[-1].train_loss == pytest.approx(one.history[-1].train_loss, abs=1e-6)


def test_epochs_are_passes_over_the_data_whatever_is_accumulated():
    assert ready(steps=None, epochs=4)[0].total_steps == 24
    setup_, _ = ready(steps=None, epochs=4, accumulate=3)
    assert (setup_.total_steps, setup_.steps_per_epoch) == (8, 2)


def test_an_average_is_what_is_measured_and_delivered_and_its_buffers_are_averaged_too():
    made = ready(ema=0.9, eval_every=4)
    trained = train(made, Budget(0, 12, (6,)), needs=("best",))
    model = copy.deepcopy(made[1].build(0))
    load_state(model, trained.params)
    trainer = made[0].trainer
    assert isinstance(trainer, GDTrainer)
    measured = evaluate(model, trainer.parts.validation, trainer.objective, trainer.device, 128)
    assert measured == (trained.history[-1].validation_loss, trained.history[-1].validation)
    raw = train(ready(eval_every=4), Budget(0, 12, (6,)))
    assert (trained.params["1.running_mean"] != raw.params["1.running_mean"]).any()
    # Survivors go back to the weights that were trained, not to an average of them.
    assert_same_arrays(trained.snapshots[6], raw.snapshots[6])


def test_an_average_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    average, expected = Average(model, 0.5), float(model.weight.detach())
    for update, value in enumerate((1.0, 2.0, 5.0), start=1):
        nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    with average.in_place(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 5.0


def test_label_smoothing_changes_the_loss_and_not_the_metric(tmp_path):
    plain = search(tmp_path, tiny_model, DATA, levels=0).levels[0].replicates[0].history
    smooth = search(tmp_path, tiny_model, DATA, levels=0, label_smoothing=0.3).levels[0].replicates[0].history
    assert (smooth[-1].train_loss or 0) > (plain[-1].train_loss or 0) + 0.1
    assert 0 <= (smooth[-1].validation or 0) <= 1


@pytest.mark.parametrize(
    ("data", "loss", "message"),
    [
        ((blobs()[0], blobs()[0][:, 0]), None, "whole numbers as labels"),
        (DATA, nn.CrossEntropyLoss(), "a loss was given"),
    ],
    ids=["floats", "loss"],
)
def test_label_smoothing_is_of_the_default_cross_entropy_alone(data, loss, message, tmp_path):
    with pytest.raises(BadValue, match=message):
        find_ticket(tiny_model, data, loss=loss, label_smoothing=0.1, steps=5, levels=1, out=tmp_path, quiet=True)


def test_patience_ends_a_training_after_evaluations_without_a_smaller_validation_loss(tmp_path):
    found = search(tmp_path, tiny_model, DATA, steps=400, eval_every=5, patience=3, lr=0.1, levels=1)
    for level in found.levels:
        (replicate,) = level.replicates
        losses = [point.validation_loss or 0 for point in replicate.history]
        assert len(losses) - 1 == int(np.argmin(losses)) + 3
        record = read_json(replicate.path / "config.json")
        assert record[PATIENCE_ENDED] == replicate.history[-1].step == replicate.steps < 400


def test_patience_never_ends_before_the_weights_that_survivors_go_back_to(tmp_path):
    found = search(tmp_path, tiny_model, DATA, steps=60, eval_every=5, patience=1, lr=0.3, rewind="40", levels=1)
    assert 40 <= found.levels[0].replicates[0].steps < 60


def test_a_training_that_ends_by_itself_says_that_patience_did_not_end_it():
    assert train(ready(patience=100)).facts == {PATIENCE_ENDED: None}


def settings_of_all_ways() -> dict[str, Any]:
    return {
        "optimizer": split,
        "schedule": "OneCycleLR",
        "accumulate": 2,
        "ema": 0.9,
        "precision": "fp16",
        "patience": 2,
    }


class Killed(BaseException):
    """Stands for a kill signal."""


def test_killed_and_started_again_gives_the_same_bits(tmp_path, monkeypatch):
    whole = search(tmp_path / "whole", tiny_model, DATA, levels=2, eval_every=2, **settings_of_all_ways())
    steps = itertools.count()

    def evaluated(self: Any, *args: Any) -> Any:
        if next(steps) == 8:
            raise Killed
        return original(self, *args)

    original = Average.update
    monkeypatch.setattr(Average, "update", evaluated)
    with pytest.raises(Killed):
        search(tmp_path / "cut", tiny_model, DATA, levels=2, eval_every=2, **settings_of_all_ways())
    monkeypatch.undo()
    again = search(tmp_path / "cut", tiny_model, DATA, levels=2, eval_every=2, **settings_of_all_ways())
    for one, other in zip(whole.levels, again.levels, strict=True):
        paths = [level.replicates[0].path / "trained.safetensors" for level in (one, other)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    "settings", [settings_of_all_ways(), {"optimizer": "rmsprop"}, {"schedule": "OneCycleLR"}], ids=shown
)
def test_replicates_that_cannot_be_stacked_are_trained_alone_with_the_same_result(settings):
    ready_, source = ready(lambda: nn.Linear(6, 3), **settings)
    jobs = [Job(source.initial_state(s), half_mask(source), s, Budget(0, 12)) for s in range(6)]
    together = list(ready_.trainer.train(jobs, frozenset()))
    for job, trained in zip(jobs, together, strict=True):
        (alone,) = ready_.trainer.train([job], frozenset())
        assert_same_arrays(alone.params, trained.params)


def test_another_function_is_another_run_and_the_same_one_is_found_again(tmp_path):
    def made(lr: float) -> Any:
        return lambda params: SGD(params, lr=lr)

    first, same, other = (search(tmp_path, tiny_model, DATA, optimizer=made(lr)).run for lr in (0.1, 0.1, 0.2))
    assert first == same != other


def test_a_default_setting_is_not_recorded_so_that_earlier_runs_are_found_again(tmp_path):
    config = read_json(search(tmp_path, tiny_model, DATA).run / "config.json")
    assert not {"accumulate", "ema", "patience", "optimizer_params", "optimizer_code"} & config.keys()


def test_a_run_with_a_function_is_reopened_with_the_function(tmp_path):
    run = search(tmp_path, tiny_model, DATA, optimizer=split).run
    given: dict[str, Any] = {"model": tiny_model, "data": DATA}
    with pytest.raises(BadValue, match="was a function of the caller's own"):
        ablate(run, "reinit", **given)
    with pytest.raises(ConfigMismatch, match="another function for optimizer"):
        ablate(run, "reinit", functions={"optimizer": groups}, **given)
    assert ablate(run, "reinit", functions={"optimizer": split}, **given)


HERE = "tests.lottery.test_ways_of_training"


def test_a_function_by_its_path_is_never_run_from_a_record_alone(tmp_path):
    ticket = find_ticket(
        tiny_model, DATA, optimizer=f"{HERE}:split", steps=20, levels=1, tolerance=1.0, out=tmp_path, quiet=True
    )
    assert ticket.search is not None
    run = ticket.search.run
    for use in (
        lambda **more: ablate(run, "reinit", model=tiny_model, data=DATA, **more),
        lambda **more: train_ticket(ticket, tiny_model, DATA, out=tmp_path, **more),
    ):
        with pytest.raises(Untrusted, match="names the optimizer"):
            use()
        use(trust=True)


def test_what_an_optimizer_raises_in_a_step_is_one_line_with_the_callers_place():
    class Broken(SGD):
        def step(self, closure: Any = None) -> Any:
            if self.param_groups[0].setdefault("calls", 0) == 4:
                raise RuntimeError("enough")
            self.param_groups[0]["calls"] += 1
            return super().step()

    made = ready(optimizer=lambda params: Broken(params, lr=0.1))
    with pytest.raises(RunError, match=r"the optimizer at step 5 fails: RuntimeError: enough \(.*line \d+\)"):
        train(made)


def test_sparse_adam_trains_what_has_sparse_gradients_beside_another_optimizer(tmp_path):
    words = np.random.Generator(np.random.PCG64(0)).integers(0, 5, (60, 3))
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(12, 2))

    def both(params: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
        return [SparseAdam(params[:1], lr=0.01), SGD(params[1:], lr=0.1)]

    found = search(tmp_path, model, (words, words[:, 0] % 2), optimizer=both)
    assert found.levels[-1].replicates[0].diverged is None


def test_patience_evaluates_nothing_that_is_not_a_number_as_better():
    patience = Patience(1)
    points = [Evaluation(step, None, loss, None, None, None) for step, loss in enumerate((None, 0.5))]
    assert [patience.over(point) for point in points] == [True, False]
