"""Masks that move during training (SET, RigL), and masks that may revive a weight between levels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from lottery import Data, find_ticket
from lottery.runs.directory import RunDirectory
from lottery.search.frame.resolving import resolve
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.engine import search_levels
from lottery.search.probes import NoProber
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.moves import MOVES, Moment, Proposal, exchange
from lottery.trainers.gd.moving import Mover, mover_for, settle
from lottery.trainers.gd.optimizers.named import OPTIMIZERS, make_optimizer
from lottery.trainers.gd.trainer import GDTrainer
from pruning.criteria import get_criterion
from pruning.errors import BadValue, UnknownName
from pruning.jobs import Budget, Job, Question, Trained
from pruning.mask import Mask
from pruning.torch_modules import apply_mask
from tests.lottery.helpers import FakeTrainer, Quiet, assert_same_arrays, blobs, removed, tiny_model
from tests.lottery.test_engine import INITIAL, plan
from tests.lottery.test_gd_trainer import half_mask, ready

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def moment(weights, gradients, mask, fraction=0.5, progress=0.5, seed=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    return Moment({"w": np.array(weights)}, {"w": np.array(gradients)}, Mask({"w": mask}), fraction, progress, rng)


def watch_training(setup, source, mask, seed=0, **settings):
    """Train 30 steps; return the training and (step, weights, mask) at every evaluation."""
    seen: list[Trained] = []
    budget = Budget(0, 30, until=Question(seen.append, lambda looks: False))
    (trained,) = setup.trainer.train([Job(source.initial_state(0), mask, seed, budget)], frozenset())
    return trained, seen


class TestOneMove:
    def test_rigl_drops_the_smallest_and_grows_by_gradient(self):
        look = moment([5.0, -1.0, 2.0, -3.0, 0, 0, 0], [9, 9, 9, 9, 1.0, -4.0, 2.0], [1, 1, 1, 1, 0, 0, 0], progress=0)
        after = exchange(look.mask, MOVES["rigl"].value(look))
        assert after["w"].tolist() == [True, False, False, True, False, True, True]

    @pytest.mark.parametrize(("progress", "fraction"), [(0.0, 0.3), (0.5, 0.15), (1 / 3, 0.225), (1.0, 0.0)])
    def test_the_fraction_of_rigl_falls_as_a_cosine(self, progress, fraction):
        look = moment([1.0], [1.0], [1], fraction=0.3, progress=progress)
        assert math.isclose(MOVES["rigl"].value(look).fraction, fraction, abs_tol=1e-12)

    def test_set_drops_the_smallest_and_grows_at_random(self):
        kept, total = 40, 100
        mask = np.arange(total) < kept
        weights = np.where(mask, -1.0 - np.arange(total), 0)
        grown = []
        for seed in range(20):
            look = moment(weights, np.zeros(total), mask, fraction=0.25, progress=0.9, seed=seed)
            after = exchange(look.mask, MOVES["set"].value(look))["w"]
            assert not after[:10].any() and after[10:kept].all()
            grown.append(frozenset(np.flatnonzero(after[kept:])))
            again = moment(weights, np.zeros(total), mask, fraction=0.25, progress=0.9, seed=seed)
            assert np.array_equal(exchange(again.mask, MOVES["set"].value(again))["w"], after)
        assert len(set(grown)) == 20 and len(frozenset.union(*grown)) > 50

    @pytest.mark.parametrize("name", MOVES.names())
    @pytest.mark.parametrize("density", [0.02, 0.3, 0.9, 1.0])
    def test_counts_stay_and_only_removed_weights_come_in(self, name, density):
        rng = np.random.Generator(np.random.PCG64(7))
        for fraction in (0.1, 1.0):
            keep = {n: rng.random(shape) < density for n, shape in (("a", (9, 7)), ("b", (5,)))}
            mask = Mask(keep)
            weights = mask.apply({n: rng.standard_normal(k.shape) for n, k in mask.items()})
            gradients = {n: rng.standard_normal(k.shape) for n, k in mask.items()}
            proposal = MOVES[name].value(Moment(weights, gradients, mask, fraction, 0.2, rng))
            after = exchange(mask, proposal)
            assert after.counts() == mask.counts()
            for n, before in mask.items():
                left = min(int(proposal.fraction * before.sum()), (~before).sum())
                assert (before & ~after[n]).sum() == (after[n] & ~before).sum() == left

    def test_a_weight_that_leaves_does_not_come_back_at_once(self):
        after = exchange(Mask({"w": [1, 1, 0]}), Proposal(1.0, {"w": np.array([2, 1, 0])}, {"w": np.array([9, 9, 0])}))
        assert after["w"].tolist() == [True, False, True]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_and_optimizer_state_of_a_move_start_at_zero(optimizer):
    config = GDConfig(optimizer=optimizer, momentum=0.9 if optimizer == "sgd" else 0.0, weight_decay=0.1)
    model = tiny_model()
    before = half_mask(model)
    apply_mask(model, before)
    made = make_optimizer(model, config)
    for _ in range(3):
        model(torch.from_numpy(blobs()[0])).square().sum().backward()
    mover = Mover(MOVES["rigl"].value, tuple(before), 0, 4, 20, 0.5, 0)
    assert all(mover.moved(model, before, step) is None for step in (1, 2, 3, 20, 24))
    for name, parameter in model.named_parameters():
        if name in before and parameter.grad is not None:
            parameter.grad *= torch.from_numpy(before[name].copy())
    made.step()
    after = mover.moved(model, before, 4)
    assert after is not None and after != before
    settle(model, made, before, after)
    for name, parameter in model.named_parameters():
        if name not in before:
            continue
        stayed = before[name] & after[name]
        values = [value for value in made.state[parameter].values() if value.shape == parameter.shape]
        assert len(values) == {"sgd": 1, "adam": 2, "adamw": 2}[optimizer]
        for value in [*values, parameter.detach()]:
            assert (value.numpy()[~stayed] == 0).all()
            # Not all of them: the gradient of a unit that dropout took is 0.
            assert (value.numpy()[stayed] != 0).mean() > 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("moves", MOVES.names())
def test_at_every_step_counts_hold_and_removed_weights_are_zero(moves, optimizer):
    settings: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    settings |= {"weight_decay": 0.1, "clip_norm": 1.0, "optimizer": optimizer, "lr": 0.02, "eval_every": 1}
    setup, source = ready(moves=moves, move_every=5, move_until=1.0, move_fraction=1.0, **settings)
    mask = half_mask(source.build(0))
    trained, seen = watch_training(setup, source, mask)
    assert len(seen) == 30
    assert trained.mask is not None
    before, changes = mask, []
    for step, point in enumerate(seen, start=1):
        assert point.mask is not None and point.mask.counts() == mask.counts()
        assert (removed(point.mask, point.params) == 0).all()
        if point.mask != before:
            changes.append(step)
        before = point.mask
    # Every fifth step, and not at the last one: what came in would be stored untrained.
    assert changes == [5, 10, 15, 20, 25]
    assert trained.mask == before
    again, _ = watch_training(setup, source, mask)
    assert_same_arrays(again.params, trained.params)
    # What came in last learns like the others: it is 0 when it comes in, and not when training ends.
    came_in = {name: trained.mask[name] & ~(seen[23].mask or mask)[name] for name in mask}
    fresh, learned = (
        np.concatenate([params[name][new] for name, new in came_in.items()])
        for params in (seen[24].params, trained.params)
    )
    assert len(fresh) and (fresh == 0).all() and (learned != 0).any()


def test_the_explored_ratio_is_that_of_the_union_of_all_masks():
    setup, source = ready(moves="set", move_every=5, eval_every=1)
    mask = half_mask(source.build(0))
    trained, seen = watch_training(setup, source, mask)
    union = mask
    for point in seen:
        assert point.mask is not None
        union = union | point.mask
    assert trained.facts == {"explored": union.density} and mask.density < union.density < 1


def test_a_dense_mask_has_nothing_to_move():
    dense = None
    for moves in ("none", "rigl"):
        setup, source = ready(moves=moves, move_every=2)
        mask = Mask.dense(half_mask(source.build(0)).shapes())
        trained, _ = watch_training(setup, source, mask)
        assert trained.mask is None and trained.facts == {}
        dense = dense or trained
        assert_same_arrays(trained.params, dense.params)


def test_a_move_on_gradients_that_are_no_numbers_does_not_hide_that_training_failed():
    setup, source = ready(moves="rigl", move_every=2, optimizer="sgd", lr=1e30, eval_every=5)
    trained, _ = watch_training(setup, source, half_mask(source.build(0)))
    assert trained.diverged == "the loss is not finite at step 5"


def test_where_nothing_of_the_mask_is_trained_nothing_can_move():
    setup, source = ready(moves="set", train_only=("norm",))
    with pytest.raises(BadValue, match="moves 'set': none of the tensors that the mask covers is trained"):
        watch_training(setup, source, half_mask(source.build(0)))


def test_a_tensor_that_is_not_trained_keeps_its_mask():
    setup, source = ready(moves="set", move_every=2, train_only=("4.*",))
    mask = half_mask(source.build(0))
    trained, _ = watch_training(setup, source, mask)
    assert trained.mask is not None
    assert np.array_equal(trained.mask["0.weight"], mask["0.weight"])
    assert not np.array_equal(trained.mask["4.weight"], mask["4.weight"])
    assert_same_arrays({"w": trained.params["0.weight"]}, {"w": mask.apply(source.initial_state(0))["0.weight"]})


def test_steps_are_counted_from_the_rewind_point():
    job = Job({}, Mask({"0.weight": np.eye(8, 6)}), 3, Budget(100, 200))
    mover = mover_for(GDConfig(moves="set", move_every=10, move_until=0.5), job, tiny_model(), {})
    assert mover is not None and (mover.start, mover.last, mover.seed) == (100, 50, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"move_fraction": 0.0}, "move_fraction must be a fraction"),
        ({"move_until": 1.5}, "move_until must be a fraction"),
        ({"move_every": 1}, "move_every must be 2 or more, not 1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(BadValue, match=message):
        GDConfig(**settings)


def test_names_and_what_does_not_go_together():
    with pytest.raises(UnknownName, match="unknown moves 'rigel': did you mean 'rigl'"):
        GDConfig(moves="rigel")
    with pytest.raises(BadValue, match="moves 'rigl' exchanges single weights, which breaks pattern 'rows'"):
        resolve({"moves": "rigl", "pattern": "rows"})


def search(tmp_path, **settings) -> RunDirectory:
    defaults = {"steps": 24, "batch_size": 16, "levels": 3, "tolerance": 1.0, "prune_rate": 0.4, "out": tmp_path}
    found = find_ticket(tiny_model, DATA, **(defaults | settings)).search
    assert found is not None
    return RunDirectory(found.run)


class TestSearch:
    @pytest.mark.parametrize("moves", ["none", *MOVES.names()])
    def test_masks_keep_their_counts_and_are_nested_only_where_they_stay(self, tmp_path, moves, monkeypatch):
        jobs: list[Job] = []
        train = GDTrainer.train
        monkeypatch.setattr(GDTrainer, "train", lambda self, todo, needs: jobs.extend(todo) or train(self, todo, needs))
        run = search(tmp_path, moves=moves, move_every=4, move_fraction=0.8)
        masks = [run.read_mask(0, level) for level in range(4)]
        assert [mask.kept for mask in masks] == [72, 43, 26, 16]
        nested = [after.issubset(before) for before, after in itertools.pairwise(masks)]
        assert nested == ([True] * 3 if moves == "none" else [True, False, False])
        for level in (1, 2, 3):
            # A level begins within the mask that the one before ended with, at the rewind weights.
            assert jobs[level].mask.issubset(masks[level - 1])
            assert jobs[level].mask.counts() == masks[level].counts()
            assert (removed(masks[level], run.read_trained(0, level).params) == 0).all()
            assert_same_arrays(jobs[level].params, run.read_rewound(0, 0))
            record = run.read_record(0, level)
            assert record["config"]["moves"] == moves
            assert ("explored" in record) == (moves != "none")

    def test_standard_deviations_are_those_of_the_last_mask(self, tmp_path):
        run = search(tmp_path, moves="set", move_every=4, criterion="snr", levels=2)
        for level in (1, 2):
            std, mask = run.read_trained(0, level).std, run.read_mask(0, level)
            assert std is not None
            assert (removed(mask, std) == 0).all() and all((std[name][keep] > 0).all() for name, keep in mask.items())


class TestAdaptiveMasks:
    def draw(self, candidates: str, at: str = "trained", rounds: int = 1) -> Mask:
        drawing = Drawing(get_criterion("magnitude"), NoProber("-"), at, rounds, candidates, 0)
        job = Job({"w": np.array([1.0, 2, 3, -9, 5])}, Mask({"w": [1, 1, 1, 0, 1]}), 0, Budget(0, 0))
        trained = Trained({"w": np.array([8.0, 0.5, 7, 0, 6])}, [])
        return drawing.draw(trained, job, job.params, 3)

    def test_a_removed_weight_competes_at_its_rewind_value(self):
        assert self.draw("survivors")["w"].tolist() == [True, False, True, False, True]
        assert self.draw("all")["w"].tolist() == [True, False, True, True, False]
        assert self.draw("all", rounds=2)["w"].tolist() == [True, False, True, True, False]
        assert self.draw("all", at="rewind")["w"].tolist() == [False, False, True, True, True]

    @pytest.mark.parametrize("rewind", ["0", "30"])
    def test_a_revived_weight_starts_at_its_rewind_value(self, tmp_path, rewind):
        seen: list[Job] = []

        class Shrinking(FakeTrainer):
            def train(self, jobs, needs):
                for job in jobs:
                    seen.append(job)
                    # In another order at each level, and always smaller than the removed weights.
                    scale = np.roll(np.linspace(0.1, 0.2, 100), 37 * len(seen)).reshape(10, 10).astype(np.float32)
                    params = {**job.params, "w": scale * job.mask["w"]}
                    snapshots = {step: {n: p + step for n, p in job.params.items()} for step in job.budget.snapshots}
                    yield Trained(params, [], snapshots)

        run = RunDirectory(tmp_path)
        # Without an evaluation there is nothing to choose by; the engine only has to draw masks.
        search_levels(plan(rewind, candidates="all", replicates=1), Shrinking(), INITIAL, run, Quiet())
        first, second = seen[1], seen[2]
        revived = second.mask["w"] & ~first.mask["w"]
        assert (first.mask.kept, second.mask.kept, seen[3].mask.kept) == (80, 64, 51)
        assert revived.sum() == 20
        start = INITIAL[0]["w"] + int(rewind)
        assert (second.mask.apply(second.params)["w"][revived] == start[revived]).all()

    @pytest.mark.parametrize("candidates", ["survivors", "all"])
    def test_counts_are_exact_and_survivors_stay_nested(self, tmp_path, candidates):
        run = search(tmp_path, candidates=candidates, optimizer="adamw", lr=0.05, weight_decay=5.0)
        masks = [run.read_mask(0, level) for level in range(4)]
        assert [mask.kept for mask in masks] == [72, 43, 26, 16]
        nested = [after.issubset(before) for before, after in itertools.pairwise(masks)]
        assert all(nested) == (candidates == "survivors")
        for level in (1, 2, 3):
            trained = run.read_trained(0, level).params
            assert (removed(masks[level], trained) == 0).all()
            assert_same_arrays(run.read_rewound(0, level), run.read_rewound(0, 0))

    def test_a_criterion_that_needs_what_removed_weights_lack_is_refused(self, tmp_path):
        with pytest.raises(BadValue, match="candidates 'all' scores removed weights too, .* no std of those"):
            search(tmp_path, candidates="all", criterion="snr")
