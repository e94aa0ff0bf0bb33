"""Early-Bird tickets: when masks count as stable, what ends early, and what is drawn from."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from es.config import ESConfig
from lottery import Data, find_ticket
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.runs.directory import RunDirectory
from lottery.search.frame.resolving import resolve
from lottery.search.levels.early_bird import asked_when_stable, at_stable_mask, is_stable, with_answer_in_record
from lottery.settings.config import SearchConfig
from lottery.trainers import Ask
from lottery.trainers.es.setup import setup as evolution
from lottery.trainers.gd.loop.asking import Asking
from pruning.errors import BadValue
from pruning.jobs import Answer, Budget, Evaluation, Job, Question, Trained
from pruning.mask import Mask
from pruning.selection import select
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model
from tests.lottery.test_evolving import net
from tests.lottery.test_gd_trainer import ready

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
A, B, C = Mask({"w": [1, 1, 0, 0, 0]}), Mask({"w": [1, 0, 1, 0, 0]}), Mask({"w": [0, 0, 1, 1, 0]})


class TestStability:
    @pytest.mark.parametrize(
        ("masks", "competing", "distance", "window", "stable"),
        [
            ([A], 5, 1.0, 2, False),  # too few
            ([A, A], 5, 0.0, 2, True),
            ([A, B], 5, 0.39, 2, False),  # they differ in 2 of 5
            ([A, B], 5, 0.4, 2, True),
            ([A, B], 4, 0.4, 2, False),  # and in 2 of 4 of those that could
            ([C, A, A], 5, 0.1, 2, True),  # older ones do not count
            ([C, A, A], 5, 0.1, 3, False),
            ([A, C, B], 5, 0.4, 3, True),  # only distances from the newest count: A and C differ in 4
            ([A, B, C], 5, 0.4, 3, False),
        ],
    )
    def test_by_hand(self, masks, competing, distance, window, stable):
        assert is_stable(masks, competing, distance, window) is stable


def job(kept=(1, 1, 1, 1, 0), stop=100):
    return Job({"w": np.zeros(5)}, Mask({"w": kept}), 0, Budget(0, stop))


def seen(step, value=0.0):
    return Trained({"w": np.full(5, value)}, [Evaluation(step, 0.1, 0.1, 0.5, None, None)])


class TestAsking:
    def ask(self, level, masks, window=2, **settings) -> tuple[Asking, list[bool]]:
        drawn = iter(masks)
        config = SearchConfig(early_bird=0.1, early_bird_window=window, **settings)
        question = asked_when_stable(config, job(), level, lambda trained: next(drawn)).budget.until
        assert question is not None
        asking = Asking(question)
        return asking, [asking.ends(seen(10 * n, n)) for n in range(1, len(masks) + 1)]

    def test_a_later_level_ends_at_its_first_stable_evaluation(self):
        asking, ends = self.ask(1, [A, C, C])
        assert ends == [False, False, True]
        after = with_answer_in_record(asking.answered(seen(30, 3), 100))
        assert after.answer == Answer(30, ended=True)
        assert after.facts == {"early_bird_step": 30, "stopped_early": True} and not after.snapshots

    def test_the_dense_level_goes_on_and_keeps_a_copy(self):
        asking, ends = self.ask(0, [A, A])
        assert ends == [False, False]
        assert not asking.ends(seen(30, 3))  # nothing is drawn any more
        after = with_answer_in_record(asking.answered(seen(100, 10), 100))
        assert after.answer == Answer(20, ended=False)
        assert after.facts == {"early_bird_step": 20, "stopped_early": False}
        assert after.snapshots[20]["w"].tolist() == [2] * 5
        assert at_stable_mask(after, after.facts).params["w"].tolist() == [2] * 5

    def test_masks_that_never_stand_still(self):
        asking, ends = self.ask(1, [A, C, A, C])
        assert ends == [False] * 4
        after = with_answer_in_record(asking.answered(seen(100, 10), 100))
        assert after.answer == Answer(None, ended=False)
        assert after.facts == {"early_bird_step": None, "stopped_early": False}
        assert at_stable_mask(after, after.facts) is after

    def test_stable_only_at_the_end_is_not_early(self):
        asking, ends = self.ask(2, [A, C] * 4 + [A, A])
        assert ends == [False] * 9 + [True]
        after = with_answer_in_record(asking.answered(seen(100), 100))
        assert after.facts == {"early_bird_step": 100, "stopped_early": False}

    def test_what_competes_is_what_the_distance_is_divided_by(self):
        # A and B differ in 2 weights: half of the 4 survivors, and less than half of all 5.
        for candidates, stable in (("survivors", False), ("all", True)):
            config = SearchConfig(early_bird=0.45, early_bird_window=2, candidates=candidates)
            question = asked_when_stable(config, job(), 1, lambda trained: A).budget.until
            assert question is not None and question.answer([A, B]) is stable

    def test_no_more_looks_are_kept_than_the_answer_is_from(self):
        asking, _ = self.ask(1, [A, C, A, C, A], window=3)
        assert asking.looks == [A, C, A]

    def test_what_was_found_is_no_part_of_the_question(self):
        def draw(trained: Trained) -> Mask:
            return A

        question = Question(draw, lambda looks: len(looks) == 2, looks=2)
        for _ in range(2):  # the second training does not see the first one's looks
            asking = Asking(question)
            assert [asking.ends(seen(step)) for step in (10, 20)] == [False, True]
        assert question == Question(draw, question.answer, looks=2)

    def test_a_training_that_was_not_asked_comes_back_as_it_is(self):
        trained = seen(100)
        assert with_answer_in_record(trained) is trained

    def test_a_question_is_no_part_of_a_budgets_identity(self):
        plain, asked = Budget(0, 9), Budget(0, 9, until=Question(lambda trained: A, any))
        assert plain == asked and hash(plain) == hash(asked) and repr(plain) == repr(asked)


@pytest.mark.parametrize("ends", [True, False])
def test_the_trainer_asks_keeps_the_answer_and_ends_where_it_should(ends):
    asked: list[int] = []

    def look(trained: Trained) -> int:
        asked.append(trained.history[-1].step)
        return asked[-1]

    setup, source = ready(eval_every=4)
    mask = Mask({"0.weight": np.eye(8, 6)})
    question = Question(look, lambda looks: looks == [8, 12], looks=2, ends=ends)
    found, short, whole = (
        next(iter(setup.trainer.train([Job(source.initial_state(0), mask, 0, budget)], frozenset())))
        for budget in (Budget(0, 30, until=question), Budget(0, 12), Budget(0, 30))
    )
    assert asked == [4, 8, 12]  # and not after the first yes
    assert found.answer == Answer(12, ended=ends) and short.answer is None
    assert_same_arrays(found.params, short.params if ends else whole.params)
    assert [point.step for point in found.history] == [4, 8, 12] + [16, 20, 24, 28, 30] * (not ends)
    assert found.snapshots.keys() == (set() if ends else {12})
    if not ends:
        assert_same_arrays(found.snapshots[12], short.params)


class TestSearch:
    def run(self, tmp_path, **settings) -> RunDirectory:
        defaults: dict[str, Any] = {"steps": 24, "eval_every": 2, "batch_size": 16, "levels": 2, "tolerance": 1.0}
        defaults |= {"early_bird": 1.0, "early_bird_window": 3, "out": tmp_path}
        found = find_ticket(tiny_model, DATA, **(defaults | settings)).search
        assert found is not None
        return RunDirectory(found.run)

    @pytest.mark.parametrize("rewind", ["0", "6", "4", "none"])
    def test_what_ends_early_and_what_is_drawn_from(self, tmp_path, rewind):
        # With a distance of 1 every third evaluation of a training is its first stable one.
        run = self.run(tmp_path, rewind=rewind)
        begin = {"0": 0, "6": 6, "4": 4, "none": 24}[rewind]
        records = [run.read_record(0, level) for level in range(3)]
        assert [record["steps"] for record in records] == [24, 6, 24 if rewind == "none" else 24 - begin]
        assert [record.get("stopped_early") for record in records] == [False, True, None]
        assert [record.get("early_bird_step") for record in records] == [6, begin + 6, None]
        # The mask of level 1 is that of the weights at step 6, which lie on disk, and not that of the end.
        dense, masks = run.read_trained(0, 0), [run.read_mask(0, level) for level in range(3)]
        sizes = [{n: np.abs(p[n]) for n in masks[0]} for p in (dense.snapshots[6], dense.params)]
        assert masks[1] == select(sizes[0], masks[0], masks[1].kept) != select(sizes[1], masks[0], masks[1].kept)
        last = run.read_trained(0, 1).params
        assert masks[2] == select({n: np.abs(last[n]) for n in masks[0]}, masks[1], masks[2].kept)
        start = {"0": run.read_rewound(0, 0), "none": dense.params}.get(rewind, dense.snapshots.get(begin))
        assert_same_arrays(run.read_rewound(0, 1), start)

    @pytest.mark.parametrize(("criterion", "extra"), [("magnitude", {}), ("snip", {"score_at": "trained"})])
    def test_watching_changes_no_training(self, tmp_path, criterion, extra):
        plain = self.run(tmp_path, early_bird=None, criterion=criterion, levels=1, **extra)
        watching = self.run(tmp_path, criterion=criterion, levels=1, **extra)
        assert_same_arrays(plain.read_trained(0, 0).params, watching.read_trained(0, 0).params)
        assert plain.read_history(0, 0) == watching.read_history(0, 0)

    def test_a_run_that_was_cut_off_draws_the_same_masks(self, tmp_path):
        run = self.run(tmp_path)
        masks = [run.read_mask(0, level) for level in range(3)]
        trained = run.read_trained(0, 2).params
        for level in (1, 2):
            shutil.rmtree(run.level_path(0, level))
        again = self.run(tmp_path)
        assert again == run
        assert [run.read_mask(0, level) for level in range(3)] == masks
        assert_same_arrays(run.read_trained(0, 2).params, trained)

    def test_weights_that_are_no_numbers_are_not_drawn_from(self, tmp_path):
        setup, source = ready(optimizer="sgd", lr=1e30, eval_every=1)
        mask = Mask({"0.weight": np.ones((8, 6))})
        shown: list[Trained] = []
        budget = Budget(0, 30, until=Question(shown.append, lambda looks: False))
        (trained,) = setup.trainer.train([Job(source.initial_state(0), mask, 0, budget)], frozenset())
        assert trained.diverged is not None
        assert all(np.isfinite(array).all() for point in shown for array in point.params.values())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"early_bird": 1.5}, "early_bird must be a distance, 0 or more and at most 1, not 1.5"),
            ({"early_bird_window": 1}, "early_bird_window must be 2 or more, not 1"),
            ({"draw_from": "dense"}, "use draw_from 'previous'"),
            ({"criterion": "snr"}, "criterion 'snr' has no std; use magnitude"),
            ({"criterion": "snip"}, "criterion 'snip' scores the rewind point"),
            ({"score_at": "rewind"}, "criterion 'magnitude' scores the rewind point"),
        ],
    )
    def test_what_does_not_go_together_is_said_before_anything_is_written(self, tmp_path, settings, message):
        with pytest.raises(BadValue, match=message):
            self.run(tmp_path / "runs", **settings)
        assert not (tmp_path / "runs").exists()


def test_evolution_does_not_end_early():
    with pytest.raises(BadValue, match="leave it out, or use trainer 'gd'"):
        resolve({"trainer": "es", "early_bird": 0.1})
    parts = prepare(DATA, 0)
    source = torch_source(net, parts, "model")
    ready_ = evolution(Ask(source, parts, ESConfig(population=4), None, None, Silent(), 0))
    budget = Budget(0, 2, until=Question(lambda trained: A, lambda looks: True))
    todo = Job(source.initial_state(0), Mask({"0.weight": np.ones((8, 6))}), 0, budget)
    with pytest.raises(BadValue, match="the es trainer does not end a training early"):
        list(ready_.trainer.train([todo], frozenset()))
