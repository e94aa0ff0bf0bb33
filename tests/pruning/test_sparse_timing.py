"""Who wins a race: dense in doubt."""

from __future__ import annotations

import pytest
import torch

from pruning.sparse.choosing import timing

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("measured", "winner"),
    [
        ([{"dense": 1.0, "bags": 0.5}], "bags"),
        ([{"dense": 1.0, "bags": 1.5}], "dense"),
        ([{"dense": 1.0, "bags": 0.96}], "dense"),
        ([{"dense": 1.0, "bags": 0.9}, {"dense": 1.0, "bags": 0.93}], "bags"),
        ([{"dense": 1.0, "bags": 0.9}, {"dense": 1.0, "bags": 0.97}], "dense"),
        ([{"dense": 1.0, "bags": 0.9, "csr": 0.8}, {"dense": 1.0, "csr": 1.1}], "dense"),
    ],
)
def test_dense_wins_in_doubt_and_a_narrow_win_is_measured_again(monkeypatch, measured, winner):
    left = list(measured)

    def race(runs, *_):
        assert set(runs) == set(left[0])
        return dict(left.pop(0))

    monkeypatch.setattr(timing, "race", race)
    runs = dict.fromkeys(measured[0], lambda: None)
    assert timing.fastest(runs, "dense", CPU, 0.0)[0] == winner
    assert not left


def test_every_run_is_timed_in_every_round_after_one_that_does_not_count():
    calls = []
    taken = timing.rounds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, 0.0)
    assert {name: len(times) for name, times in taken.items()} == {"a": timing.LEAST, "b": timing.LEAST}
    # the first round, then each once to warm its caches and once timed
    assert calls == ["a", "b"] + ["a", "a", "b", "b"] * timing.LEAST
