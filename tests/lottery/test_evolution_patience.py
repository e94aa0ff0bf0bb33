"""Patience of evolution: it ends as gradient descent's does, says when, and a resumed one ends where it would have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lottery import Data, find_ticket
from lottery.results.levels import Search
from lottery.runs.given import Given
from lottery.search.preparing.preparing import Request, prepare_search
from pruning.disk.files import read_json
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Trained
from pruning.settings.patience import PATIENCE_ENDED
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
FAST: dict[str, Any] = {"trainer": "es", "generations": 200, "population": 8, "sigma": 0.3, "batch_size": 32}
FAST |= {"eval_every": 2, "patience": 2}


def search(out: Any, **settings: Any) -> Search:
    settings = {**FAST, "levels": 1, "tolerance": 1.0, "quiet": True, **settings}
    found = find_ticket(tiny_model, DATA, out=out, **settings).search
    assert found is not None
    return found


def test_it_ends_after_evaluations_without_a_smaller_validation_loss(tmp_path):
    found = search(tmp_path, replicates=2)
    for level in found.levels:
        for replicate in level.replicates:
            losses = [point.validation_loss or 0 for point in replicate.history]
            assert len(losses) - 1 == int(np.argmin(losses)) + 2
            record = read_json(replicate.path / "config.json")
            assert record[PATIENCE_ENDED] == replicate.history[-1].step == replicate.steps < 200


def test_it_never_ends_before_the_weights_that_survivors_go_back_to(tmp_path):
    found = search(tmp_path, generations=60, patience=1, rewind="41")
    assert 41 <= found.levels[0].replicates[0].steps < 60


def test_one_that_ends_by_itself_says_so_and_the_default_says_nothing(tmp_path):
    ended = search(tmp_path, generations=4, patience=50)
    assert read_json(ended.levels[0].replicates[0].path / "config.json")[PATIENCE_ENDED] is None
    plain = search(tmp_path, generations=4, patience=None)
    assert "patience" not in read_json(plain.run / "config.json")
    assert PATIENCE_ENDED not in read_json(plain.levels[0].replicates[0].path / "config.json")
    with pytest.raises(BadValue, match="patience must be 1 or more"):
        search(tmp_path, patience=0)


class Kept(Silent):
    """Keeps every checkpoint, and gives back the one that it is told to."""

    def __init__(self, given: Any = None) -> None:
        self.given, self.checkpoints = given, []

    def restore(self, jobs: Any) -> Any:
        return self.given

    def checkpoint(self, jobs: Any, arrays: Any, facts: Any) -> None:
        self.checkpoints.append(({name: np.array(value) for name, value in arrays.items()}, facts))


def evolved(watch: Silent, snapshots: tuple[int, ...]) -> Trained:
    settings = {**FAST, "checkpoint_seconds": 0.0}
    ready = prepare_search(Request(Given(tiny_model, DATA), settings), watch)
    job = Job(ready.frame.initial[0], ready.frame.dense[0], 0, Budget(0, 200, snapshots))
    (trained,) = ready.frame.setup.trainer.train([job], frozenset())
    return trained


@pytest.mark.parametrize("snapshots", [(), (31,)])
def test_from_any_checkpoint_it_ends_at_the_same_generation_with_the_same_bits(snapshots):
    watch = Kept()
    whole = evolved(watch, snapshots)
    assert whole.facts[PATIENCE_ENDED] == whole.history[-1].step < 200
    chosen = [watch.checkpoints[index] for index in (0, len(watch.checkpoints) // 2, -2, -1)]
    for given in chosen:
        again = evolved(Kept(given), snapshots)
        assert again.facts == whole.facts and list(again.history) == list(whole.history)
        assert_same_arrays(dict(again.params), dict(whole.params))
