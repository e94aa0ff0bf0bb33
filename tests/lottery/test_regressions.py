"""Wrong results that a review found once, and that must not come back."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from lottery import Data, ablate
from lottery.networks.objectives.objective import own
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.search.levels.progress import Display
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.search.probes import TorchProber
from lottery.search.running import run_search
from lottery.studies.ablation.stored import read_ablation
from lottery.studies.connection.tickets import connect
from lottery.studies.instability.running import instability
from lottery.trainers.gd.trainer import GDTrainer
from pruning.errors import BadValue, RunError
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SETTINGS = {"levels": 2, "steps": 24, "batch_size": 16, "tolerance": 1.0}


def search(tmp_path, model=tiny_model, data=DATA, loss=None, **settings):
    request = Request(Given(model, data, loss), {**without_contradictions(settings), **settings}, out=tmp_path)
    return RunDirectory(run_search(request, Display(False, None)).run)


def without_contradictions(settings):
    return {key: value for key, value in SETTINGS.items() if key != "levels" or "densities" not in settings}


def with_norm(seed=0):
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


class RunningFrequencies(nn.Module):
    """Cross-entropy weighted by how often classes were seen in training mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.ones(3))

    def forward(self, outputs, targets):
        if self.training:
            self.seen += torch.bincount(targets, minlength=3)
        return F.cross_entropy(outputs, targets, weight=self.seen.sum() / self.seen)


def ready(model, trainer, **settings):
    return prepare_search(Request(Given(model, DATA), {**SETTINGS, "trainer": trainer, **settings}), Silent())


@pytest.mark.parametrize(("trainer", "own_statistics"), [("gd", True), ("es", False)])
def test_a_probe_sees_batch_norms_as_the_trainer_uses_them(trainer, own_statistics):
    base = {key: value for key, value in SETTINGS.items() if key != "steps"}
    length = {"steps": 4} if trainer == "gd" else {"generations": 4, "population": 8}
    settings = {**base, **length, "trainer": trainer, "criterion": "taylor"}
    found = prepare_search(Request(Given(with_norm, DATA), settings), Silent())
    prober = found.plan.drawing.prober
    assert isinstance(prober, TorchProber)
    mask = found.frame.dense[0]
    look = prober.prepared(Job(found.frame.initial[0], mask, 0, Budget(0, 0)), 1.0)
    assert look.model.get_submodule("1").training is own_statistics


def test_a_frozen_batch_norm_stays_frozen_while_a_mask_is_learned():
    def frozen(seed=0):
        model = with_norm()
        model[1].eval()
        return model

    prober = ready(frozen, "gd", criterion="edge-popup", score_steps=3).plan.drawing.prober
    assert isinstance(prober, TorchProber)
    made = ready(frozen, "gd")
    look = prober.prepared(Job(made.frame.initial[0], made.frame.dense[0], 0, Budget(0, 0)), 0.5)
    assert "1" in look.frozen
    prober.see("edge-popup", look)
    assert int(look.model.get_submodule("1").num_batches_tracked) == 0  # pyright: ignore[reportArgumentType]


def test_9_a_loss_with_state_learns_nothing_from_test_data(tmp_path):
    loss = RunningFrequencies()
    with_test = search(tmp_path / "a", loss=loss, levels=0)
    without = search(tmp_path / "b", data=Data(train=DATA.train, validation=DATA.validation), loss=loss, levels=0)
    assert_same_arrays(with_test.read_trained(0, 0).params, without.read_trained(0, 0).params)
    assert torch.equal(loss.seen, torch.ones(3))


def test_7_a_loss_with_state_begins_afresh_in_every_training(tmp_path):
    both = search(tmp_path / "a", loss=RunningFrequencies(), levels=0, replicates=2)
    alone = search(tmp_path / "b", loss=RunningFrequencies(), levels=0, seed=1, split_seed=0)
    assert_same_arrays(both.read_trained(1, 0).params, alone.read_trained(1, 0).params)


def test_a_callers_loss_is_copied_to_the_device_and_a_function_is_not():
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    assert own(loss, torch.device("cpu")) is not loss
    assert own(F.cross_entropy) is F.cross_entropy


def test_one_shot_keeps_the_dense_trainings_weights(tmp_path):
    run = search(tmp_path, draw_from="dense", rewind="none")
    assert_same_arrays(run.read_rewound(0, 2), run.read_trained(0, 0).params)


def test_the_rewind_point_is_what_initial_means_from_the_first_level_on(tmp_path):
    run = search(tmp_path, criterion="magnitude-initial", rewind="12", levels=1)
    point, mask = run.read_trained(0, 0).snapshots[12], run.read_mask(0, 1)
    kept = np.concatenate([np.abs(point[name][keep]) for name, keep in mask.items()])
    removed = np.concatenate([np.abs(point[name][~keep]) for name, keep in mask.items()])
    assert kept.min() >= removed.max()


class Skipping(nn.Module):
    """Skips a layer by Python's own random numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(x if self.training and random.random() < 0.01 else torch.relu(self.a(x)))


def test_what_draws_from_pythons_generator_is_not_stacked():
    settings = {"replicates": 6, "steps": 4, "steps_by": "pytorch"}
    for model, stacked in ((lambda seed: Skipping(), False), (tiny_stackable, True)):
        made = ready(model, "gd", **settings)
        trainer = made.frame.setup.trainer
        assert isinstance(trainer, GDTrainer)
        jobs = [Job(made.frame.initial[s], made.frame.dense[s], s, Budget(0, 4)) for s in range(6)]
        assert trainer.together(jobs, frozenset()) is stacked


def tiny_stackable(seed):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_what_fails_in_the_middle_of_a_training_is_one_line(tmp_path):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(6, 3), 0

        def forward(self, x):
            self.calls += self.training
            if self.calls > 8:
                raise ValueError("out of luck\nsecond line")
            return self.layer(x)

    place = rf"\({re.escape(__file__)}, line \d+\)"
    with pytest.raises(RunError, match=rf"the model or the loss at step \d+ fails: ValueError: out of luck {place}$"):
        search(tmp_path, lambda seed: Failing(), levels=0)


def test_early_bird_with_moving_masks_needs_a_dense_start():
    model = tiny_stackable(0)
    prune.random_unstructured(model[0], "weight", 0.5)
    with pytest.raises(BadValue, match="need a dense network at level 0"):
        ready(model, "gd", early_bird=0.3, moves="set", replicates=1)


def test_controls_of_an_early_bird_train_as_long_as_its_tickets(tmp_path):
    settings = {"steps": 60, "eval_every": 5, "early_bird": 0.5, "early_bird_window": 2, "replicates": 2}
    run = search(tmp_path, **settings)
    ablate(run.path, "shuffle-mask", levels=[1], model=tiny_model, data=DATA)
    instability(run.path, tiny_model, DATA, levels=[1], copies=2, points=3)
    control = RunDirectory(run.path / "ablations" / "shuffle-mask" / "repeat-0")
    copy = RunDirectory(run.path / "instability" / "copy-0")
    for seed in (0, 1):
        steps = run.read_record(seed, 1)["steps"]
        assert steps < 60
        assert control.read_record(seed, 1)["steps"] == steps == copy.read_record(seed, 1)["steps"]


def test_inverted_scores_the_weights_that_the_search_scored(tmp_path):
    run = search(tmp_path, rewind="12", score_at="rewind", densities=(0.5,), lr=0.02)
    ablate(run.path, "inverted", model=tiny_model, data=DATA)
    control = RunDirectory(run.path / "ablations" / "inverted" / "repeat-0")
    point, ticket, inverted = run.read_trained(0, 0).snapshots[12], run.read_mask(0, 1), control.read_mask(0, 1)
    for name, keep in inverted.items():
        assert np.abs(point[name])[keep].max() <= np.abs(point[name])[~keep].min()
    assert (ticket & inverted).kept < 0.3 * ticket.kept
    assert read_ablation(run.path, "inverted").levels[0].level == 1


def test_masks_that_moved_have_no_controls(tmp_path):
    run = search(tmp_path, moves="set", move_every=5, scope="layer", levels=1)
    for call in (lambda: ablate(run.path, "reinit", model=tiny_model, data=DATA),
                 lambda: instability(run.path, tiny_model, DATA, levels=[1])):  # fmt: skip
        with pytest.raises(BadValue, match="masks of this run move while it trains"):
            call()


def test_tickets_of_other_models_are_not_connected_though_their_tensors_agree(tmp_path):
    def sine(seed):
        return nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))

    one = search(tmp_path / "a", tiny_stackable, levels=0).level_path(0, 0)
    other = search(tmp_path / "b", sine, levels=0).level_path(0, 0)
    with pytest.raises(BadValue, match="their model differs"):
        connect([one, other], tiny_stackable, DATA, points=3)


def test_stacked_evolution_says_that_its_bits_depend_on_the_stack():
    base = {key: value for key, value in SETTINGS.items() if key != "steps"}
    settings = {**base, "trainer": "es", "generations": 2, "population": 8, "replicates": 3}
    made = prepare_search(Request(Given(tiny_stackable, DATA), settings), Silent())
    jobs = [Job(made.frame.initial[s], made.frame.dense[s], s, Budget(0, 2)) for s in range(3)]
    other = Job(jobs[0].params, Mask({n: np.arange(k.size).reshape(k.shape) > 3 for n, k in jobs[0].mask.items()}),
                9, Budget(0, 2))  # fmt: skip
    together = made.frame.setup.trainer.together  # pyright: ignore[reportAttributeAccessIssue]
    assert together(jobs, frozenset()) and not together(jobs[:1], frozenset())
    assert not together([jobs[0], other], frozenset())
