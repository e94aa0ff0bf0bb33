"""Jobs trained stacked: each gets what it would get alone, and a search that goes on gets the same bits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import find_ticket
from lottery.data import Data
from lottery.data.batches import training_batches
from lottery.data.parts import Tensors, prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask
from lottery.trainers.gd import stackable
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.stack import stack_of
from lottery.trainers.gd.stackable import can_stack, refusal
from lottery.trainers.gd.stacked import groups_of, train_stacked
from lottery.trainers.gd.stacks.batches import StackedBatches
from lottery.trainers.gd.stacks.masks import stacked_masks
from lottery.trainers.gd.trainer import GDTrainer
from pruning.jobs import Budget, Evaluation, Job, Question
from pruning.mask import Mask
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import blobs, removed

TABLE = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
NOTHING: frozenset[str] = frozenset()


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def conv(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3))


def normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    # A bias before a batch norm has no gradient but rounding, which Adam makes as large as any.
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def attending(seed: int = 0) -> nn.Module:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.out, self.words = nn.Linear(1, 8), nn.Linear(8, 3), nn.Embedding(4, 8)
            # A bias of keys has no gradient but rounding, like one before a batch norm.
            self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            words = self.words(x.abs().long().clamp(0, 3))
            return self.out(self.layer(self.up(x.unsqueeze(-1)) + words).mean(1))

    torch.manual_seed(seed)
    return Attending()


def conv_normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(8, 3))


def double(model: Any) -> Any:
    return lambda seed: model(seed).double()


class Watched(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.points: list[tuple[int, Evaluation]] = []

    def stepped(self, job: Job, step: int) -> None:
        self.steps.append((job.seed, step))

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        self.points.append((job.seed, evaluation))


def ready(model: Any, data: Data = TABLE, metric: Any = None, **settings: Any) -> GDTrainer:
    parts = prepare(data, 0)
    defaults: dict[str, Any] = {"steps": 50, "batch_size": 16, "steps_by": "pytorch"}
    ask = Ask(torch_source(model, parts, "model"), parts, GDConfig(**(defaults | settings)), None, metric, Watched(), 0)
    trainer = setup(ask).trainer
    assert isinstance(trainer, GDTrainer)
    return trainer


def jobs_of(trainer: GDTrainer, model: Any, count: int = 3, budget: Budget | None = None) -> list[Job]:
    """Jobs with weights, masks and seeds of their own; the first is dense."""
    jobs = []
    for seed in range(count):
        network = model(seed)
        rng = np.random.default_rng(seed)
        keep = {name: (rng.random(shape) < 0.5) | (seed == 0) for name, shape in prunable(network).items()}
        params = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        jobs.append(Job(params, Mask(keep), seed, budget or Budget(0, trainer.total_steps)))
    return jobs


def alone(trainer: GDTrainer, jobs: list[Job]) -> list[Any]:
    return [trained for job in jobs for trained in trainer.train([job], NOTHING)]


def assert_alike(one: Any, other: Any, rtol: float, atol: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=atol, err_msg=name)


def assert_same_trainings(stacked_: list[Any], single: list[Any], jobs: list[Job], rtol: float, atol: float) -> None:
    for one, other, job in zip(stacked_, single, jobs, strict=True):
        assert one.diverged is other.diverged is None
        assert_alike(one.params, other.params, rtol, atol)
        assert one.snapshots.keys() == other.snapshots.keys()
        for step in one.snapshots:
            assert_alike(one.snapshots[step], other.snapshots[step], rtol, atol)
        points = [[tuple(vars(point).values()) for point in trained.history] for trained in (one, other)]
        np.testing.assert_allclose(points[0], points[1], rtol=rtol, atol=max(atol, 1e-12))
        for params in (one.params, *one.snapshots.values()):
            assert (removed(job.mask, params) == 0).all()


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "sgd, clipped": {"optimizer": "sgd", "lr": 0.1, "clip_norm": 0.5, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01, "warmup": 5, "eval_every": 7},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "milestones", "milestones": (20, 30)},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("model", [mlp, conv, normed, conv_normed, attending])
def test_each_job_gets_what_it_gets_alone(model, settings):
    trainer = ready(double(model), **settings)
    jobs = jobs_of(trainer, double(model), budget=Budget(9, 50, (9, 20, 50)))
    assert refusal(trainer.model, trainer.config, trainer.parts, trainer.objective, jobs, trainer.device) is None
    assert_same_trainings(train_stacked(trainer, jobs), alone(trainer, jobs), jobs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("model", [mlp, conv])
def test_in_float32_it_is_the_same_up_to_rounding(model):
    trainer = ready(model, optimizer="sgd", lr=0.05, momentum=0.9)
    jobs = jobs_of(trainer, model)
    assert_same_trainings(train_stacked(trainer, jobs), alone(trainer, jobs), jobs, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_and_unused_ones_stay_as_they_do_alone():
    class Partly(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.a, self.unused, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.tied = nn.Linear(6, 6)
            self.tied.weight = self.a.weight
            self.double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(self.tied(torch.relu(self.a(x)))))

    trainer = ready(Partly, optimizer="sgd", lr=0.1, weight_decay=0.1, train_only=("a.*", "unused.*", "tied.*"))
    jobs = jobs_of(trainer, Partly)
    jobs = [replace(j, params={n: p for n, p in j.params.items() if n != "tied.weight"}) for j in jobs]
    trained = train_stacked(trainer, jobs)
    assert_same_trainings(trained, alone(trainer, jobs), jobs, rtol=1e-9, atol=1e-11)
    assert np.array_equal(trained[0].params["out.weight"], jobs[0].params["out.weight"])


def test_the_watch_hears_of_every_job_what_it_hears_alone():
    trainer = ready(mlp, eval_every=20)
    jobs = jobs_of(trainer, mlp)
    heard = []
    for train in (lambda: train_stacked(trainer, jobs), lambda: alone(trainer, jobs)):
        watch = trainer.watch
        assert isinstance(watch, Watched)
        watch.steps.clear()
        watch.points.clear()
        train()
        # Stacked, jobs take turns; sorting is by seed alone, so that each job's own order counts.
        heard.append((sorted(watch.steps, key=lambda s: s[0]), sorted((s, p.step) for s, p in watch.points)))
    assert heard[0] == heard[1]
    assert heard[0][1] == [(seed, step) for seed in range(3) for step in (20, 40, 50)]


@pytest.mark.parametrize(("examples", "batch"), [(23, 5), (20, 5), (4, 9)])
def test_batches_are_the_very_batches_of_each_job(examples, batch):
    part = Tensors(torch.randn(examples, 2), torch.arange(examples))
    batches, found = StackedBatches(part, batch, [3, 8], 13), []
    for step in range(2, 13):
        batches.before(step)
        found.append(batches.gathered())
        batches.passed()
    for row, seed in enumerate([3, 8]):
        expected = list(training_batches(part, batch, seed, 2, 13))
        assert len(found) == len(expected) == 11
        for (inputs, targets), (x, y) in zip(found, expected, strict=True):
            assert torch.equal(inputs[row], x)
            assert torch.equal(targets[row], y)


@pytest.mark.parametrize("model", [mlp, conv, conv_normed])
def test_a_diverged_job_ends_as_it_does_alone_and_leaves_the_others_alone(model):
    trainer = ready(double(model), optimizer="adamw", eval_every=10, clip_norm=1.0)
    jobs = jobs_of(trainer, double(model), budget=Budget(0, 50, (5, 30)))
    last = list(jobs[1].params)[-1]
    jobs[1] = replace(jobs[1], params={**jobs[1].params, last: np.full(3, np.nan)})
    trained = train_stacked(trainer, jobs)
    (expected,) = alone(trainer, [jobs[1]])
    assert trained[1].diverged == expected.diverged == "the loss is not finite at step 10"
    assert [point.step for point in trained[1].history] == [10]
    others = [trained[0], trained[2]]
    assert_same_trainings(others, alone(trainer, [jobs[0], jobs[2]]), [jobs[0], jobs[2]], rtol=1e-9, atol=1e-11)


def test_a_metric_that_works_on_one_network_only_is_called_for_each():
    def worst(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(np.abs(outputs.numpy()).max()) if len(targets) else 0.0

    trainer = ready(double(mlp), metric=worst, batch_size=2)
    jobs = jobs_of(trainer, double(mlp))
    assert_same_trainings(train_stacked(trainer, jobs), alone(trainer, jobs), jobs, rtol=1e-9, atol=1e-11)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "needs", "reason"),
        [
            ({"precision": "bf16"}, NOTHING, "the setting precision"),
            ({"augment": "flip-crop"}, NOTHING, "the setting augment"),
            ({"moves": "set"}, NOTHING, "the setting moves"),
            ({}, frozenset({"std"}), "std is taken from one training"),
        ],
    )
    def test_settings_and_needs(self, settings, needs, reason):
        trainer = ready(mlp)
        config = replace(trainer.config, **settings)
        assert reason in str(can_stack(trainer.model, config, trainer.parts, jobs_of(trainer, mlp), needs))

    def test_budgets(self):
        trainer = ready(mlp)
        jobs = jobs_of(trainer, mlp)
        mixed = [jobs[0], replace(jobs[1], budget=Budget(1, 50))]
        question = Question(lambda trained: None, lambda looks: True)
        asked = [replace(job, budget=replace(job.budget, until=question)) for job in jobs]
        for given, reason in ((jobs[:1], "one job"), (mixed, "budgets"), (asked, "may end before")):
            assert reason in str(can_stack(trainer.model, trainer.config, trainer.parts, given, NOTHING))
        assert can_stack(trainer.model, trainer.config, trainer.parts, jobs, NOTHING) is None

    def test_layers_and_types(self):
        trainer = ready(mlp)
        jobs = jobs_of(trainer, mlp)
        frozen = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5).eval())
        for model, reason in (
            (nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)), "dropout"),
            (nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).eval(), "dropout"),
            (nn.LSTM(6, 3), "recurrent"),
            (mlp().bfloat16(), "float32"),
        ):
            assert reason in str(can_stack(model, trainer.config, trainer.parts, jobs, NOTHING))
        assert can_stack(frozen, trainer.config, trainer.parts, jobs, NOTHING) is None

    def test_a_loader(self):
        loader = DataLoader(TensorDataset(*map(torch.as_tensor, TABLE.train)), batch_size=16)
        trainer = ready(mlp, Data(train=loader, validation=TABLE.validation))
        assert "DataLoader" in str(
            can_stack(trainer.model, trainer.config, trainer.parts, jobs_of(trainer, mlp), NOTHING)
        )

    @pytest.mark.parametrize("kind", ["branches", "draws", "counts"])
    def test_what_torch_func_refuses_or_computes_otherwise_is_found_by_trying(self, kind, eager):
        class Odd(nn.Module):
            def __init__(self, seed: int) -> None:
                super().__init__()
                torch.manual_seed(seed)
                self.fc, self.calls = nn.Linear(6, 3), 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                out = self.fc(x)
                if kind == "branches":
                    return out if out.sum() > 0 else 2 * out
                return out * torch.rand(3) if kind == "draws" else out * float(np.random.rand())  # noqa: NPY002

        trainer = ready(Odd)
        jobs = jobs_of(trainer, Odd)
        assert can_stack(trainer.model, trainer.config, trainer.parts, jobs, NOTHING) is None
        assert refusal(trainer.model, trainer.config, trainer.parts, trainer.objective, jobs, trainer.device)
        assert [len(group) for group in groups_of(trainer, jobs, NOTHING)] == [1, 1, 1]
        assert not trainer.together(jobs, NOTHING)


@pytest.fixture
def eager(monkeypatch):
    """Stack from two jobs on."""
    monkeypatch.setitem(stackable.STACKED_JOBS, "cpu", 2)


class TestGroups:
    def test_few_jobs_are_trained_one_after_the_other(self):
        trainer = ready(mlp)
        assert not trainer.together(jobs_of(trainer, mlp, stackable.STACKED_JOBS["cpu"] - 1), NOTHING)
        assert trainer.together(jobs_of(trainer, mlp, stackable.STACKED_JOBS["cpu"]), NOTHING)

    def test_small_networks_are_stacked_up_to_a_full_device_by_budget(self, monkeypatch, eager):
        trainer = ready(mlp)
        jobs = jobs_of(trainer, mlp, 5)
        jobs[4] = replace(jobs[4], budget=Budget(1, 50))
        assert [len(group) for group in groups_of(trainer, jobs, NOTHING)] == [4, 1]
        assert trainer.together(jobs, NOTHING)
        flops = 16 * 2 * (6 * 8 + 8 * 3)
        monkeypatch.setitem(stackable.FULL_FLOPS, "cpu", 2 * flops)
        groups = groups_of(trainer, jobs, NOTHING)
        assert [len(group) for group in groups] == [2, 2, 1]
        assert [job.seed for group in groups for job in group] == [0, 1, 2, 3, 4]
        assert [trained.history[-1].step for trained in trainer.train(jobs, NOTHING)] == [50] * 5
        monkeypatch.setitem(stackable.STACKED_FLOPS, "cpu", flops - 1)
        assert not trainer.together(jobs, NOTHING)

    def test_the_trainer_stacks_by_itself(self, monkeypatch, eager):
        seen = []
        monkeypatch.setattr(
            "lottery.trainers.gd.trainer.train_stacked",
            lambda trainer, jobs, needs: seen.append(len(jobs)) or train_stacked(trainer, jobs, needs),
        )
        trainer = ready(mlp)
        list(trainer.train(jobs_of(trainer, mlp), NOTHING))
        assert seen == [3]


def test_a_search_that_goes_on_gives_the_same_bits(tmp_path, eager):
    """Regression: rounding depends on what is in a stack; a level that was half written is trained whole again."""

    def search():
        found = find_ticket(mlp, TABLE, levels=3, replicates=3, steps=40, steps_by="pytorch", out=tmp_path)
        assert found.search is not None
        return found.search.run

    run = search()

    def bits():
        kinds = (".safetensors", ".jsonl")
        paths = [path for path in sorted(run.rglob("*")) if path.suffix in kinds or path.name == "history.json"]
        return {path.relative_to(run): path.read_bytes() for path in paths}

    before = bits()
    shutil.rmtree(run / "seed-1" / "level-01")
    for later in [*run.glob("seed-*/level-02"), *run.glob("seed-*/level-03")]:
        shutil.rmtree(later)
    untouched = (run / "seed-0" / "level-01" / "trained.safetensors").stat().st_mtime_ns
    search()
    after = bits()
    assert before.keys() == after.keys()
    assert [path for path in before if before[path] != after[path]] == []
    assert (run / "seed-0" / "level-01" / "trained.safetensors").stat().st_mtime_ns == untouched


def test_a_jobs_network_begins_at_its_weights_masked_and_in_training_mode():
    model = mlp().eval()
    params = {name: value.detach().numpy() + 1 for name, value in model.state_dict().items()}
    mask = Mask({"0.weight": np.arange(48).reshape(8, 6) % 2 == 0})
    network = network_for(model, Job(params, mask, 0, Budget(0, 1)), ["0.*"], torch.device("cpu")).model
    found = network.state_dict()
    assert np.array_equal(found["0.weight"].numpy(), params["0.weight"] * mask["0.weight"])
    assert np.array_equal(found["2.weight"].numpy(), params["2.weight"])
    assert network.training and not model.training
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["0.weight", "0.bias"]


def test_the_masks_of_a_stack_are_numbers_for_the_tensors_that_lost_a_weight():
    model = mlp()
    params = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    half = Mask({"0.weight": np.arange(48).reshape(8, 6) % 2 == 0, "2.weight": np.ones((3, 8))})
    jobs = [Job(params, mask, 0, Budget(0, 1)) for mask in (Mask.dense(prunable(model)), half)]
    keeps = stacked_masks(stack_of(model, jobs, [], torch.device("cpu")).trained, jobs).kept
    assert keeps.keys() == {"0.weight"}
    assert keeps["0.weight"][0].min() == 1 and np.array_equal(keeps["0.weight"][1].numpy(), half["0.weight"])
