"""Separate seeds: weights, masks and data draw from a seed of their own where they are given one; a grid over two."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest

from lottery import Data, expected_best, find_ticket, seed_grid
from lottery.runs.directory import RunDirectory
from lottery.runs.ticket import Ticket
from lottery.search.levels.progress import Display, Recorder
from lottery.settings.config import SearchConfig
from lottery.settings.fields import recorded
from lottery.studies.ablation.running import ablate
from lottery.studies.seeds.splitting import split_variance
from pruning.errors import BadValue, UsageError
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SMALL: dict[str, Any] = {"densities": [0.4], "steps": 12, "batch_size": 16, "tolerance": 1.0, "quiet": True}


def searched(out, model: Any = tiny_model, **settings: Any) -> RunDirectory:
    found = find_ticket(model, DATA, out=out, **(SMALL | settings)).search
    assert found is not None
    return RunDirectory(found.run)


def same(first, second) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def start(run, seed=0, level=0):
    return run.read_rewound(seed, level)


def end(run, seed=0, level=0):
    return run.read_trained(seed, level).params


def test_without_them_everything_follows_the_seed_and_no_record_says_more():
    assert not {"seed_weights", "seed_mask", "seed_data"} & recorded(SearchConfig()).keys()
    assert recorded(SearchConfig(seed_data=3))["seed_data"] == 3


def test_all_three_at_one_number_are_the_replicate_of_that_seed(tmp_path):
    plain = searched(tmp_path / "a", seed=3, criterion="random")
    own = searched(tmp_path / "b", criterion="random", seed_weights=3, seed_mask=3, seed_data=3)
    for level in (0, 1):
        assert_same_arrays(start(plain, 3, level), start(own, 0, level))
        assert plain.read_mask(3, level) == own.read_mask(0, level)
        assert_same_arrays(end(plain, 3, level), end(own, 0, level))


def test_each_seed_changes_what_it_is_for(tmp_path):
    base = searched(tmp_path, criterion="random")
    data, mask = (searched(tmp_path, criterion="random", **{name: 5}) for name in ("seed_data", "seed_mask"))
    weights = searched(tmp_path, criterion="random", seed_weights=5)
    assert len({run.path for run in (base, data, mask, weights)}) == 4
    assert same(start(base), start(data)) and not same(end(base), end(data))
    assert base.read_mask(0, 1) == data.read_mask(0, 1) == weights.read_mask(0, 1) != mask.read_mask(0, 1)
    assert same(end(base), end(mask)) and not same(start(base), start(weights))


def test_replicates_share_the_seed_that_is_given_and_differ_in_the_rest(tmp_path):
    run = searched(tmp_path, replicates=2, seed_weights=5)
    assert same(start(run, 0), start(run, 1)) and not same(end(run, 0), end(run, 1))
    run = searched(tmp_path, replicates=2, seed_data=5)
    assert not same(start(run, 0), start(run, 1))


def test_evaluations_are_those_of_their_own_replicate_where_two_share_their_data(tmp_path):
    run = searched(tmp_path, replicates=2, seed_data=5)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for seed in (0, 1):
        loss = [row["validation_loss"] for row in rows if (row["seed"], row["level"]) == (seed, 0)]
        assert loss == [point.validation_loss for point in run.read_history(seed, 0)]


def test_the_same_call_finds_the_same_run(tmp_path, capsys):
    first = searched(tmp_path, seed_weights=3, seed_data=5, quiet=False)
    assert searched(tmp_path, seed_weights=3, seed_data=5, quiet=False).path == first.path
    assert "nothing was trained" in capsys.readouterr().err


def test_a_redrawn_level_and_controls_follow_the_seeds(tmp_path):
    drawn: dict[str, Any] = {"init": "unit-scaled", "init_params": {"gain": 1.0}, "redraw": True}
    plain = searched(tmp_path / "a", seed=3, **drawn)
    own = searched(tmp_path / "b", seed_weights=3, seed_mask=3, seed_data=3, **drawn)
    assert_same_arrays(start(plain, 3, 1), start(own, 0, 1))
    for run in (plain, own):
        ablate(run.path, ["reinit", "random-mask"], model=tiny_model, data=DATA)
    for kind in ("reinit", "random-mask"):
        one, other = (RunDirectory(run.path / "ablations" / kind / "repeat-0") for run in (plain, own))
        assert one.read_mask(3, 1) == other.read_mask(0, 1)
        assert_same_arrays(end(one, 3, 1), end(other, 0, 1))


def test_a_ticket_makes_its_network_from_the_seed_of_its_weights(tmp_path):
    made: list[int] = []

    def make(seed: int):
        made.append(seed)
        return tiny_model(seed)

    run = searched(tmp_path, make, seed_weights=7)
    made.clear()
    Ticket.load(run.level_path(0, 1)).rewound(make)
    assert made == [7]


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (tiny_model, {"seed_weights": 1, "seed_data": 1, "replicates": 2}, "2 replicates would be one dense training"),
        (tiny_model(0), {"seed_weights": 1}, "'Sequential' has one initialization only"),
        (tiny_model, {"seed_data": -1}, "seed_data must be 0 or more"),
        (tiny_model, {"data_seed": 1}, "here it is called 'seed_data'"),
    ],
)
def test_what_cannot_be_is_one_line(model, settings, said, tmp_path):
    with pytest.raises(UsageError, match=said) as found:
        searched(tmp_path, model, **settings)
    assert "\n" not in str(found.value)


def test_the_expected_best_is_the_mean_of_the_maxima_of_all_draws():
    values = [0.3, 0.9, 0.5, 0.7]
    assert expected_best(values, 1) == pytest.approx(np.mean(values))
    for n in (2, 3):
        maxima = [max(drawn) for drawn in itertools.product(values, repeat=n)]
        assert expected_best(values, n) == pytest.approx(np.mean(maxima))
    assert expected_best(values, 10_000) == pytest.approx(0.9)
    for values, n in (([], 1), ([1.0], 0), ([[1.0]], 1)):
        with pytest.raises(BadValue):
            expected_best(values, n)


def test_a_split_by_hand():
    """Rows 0 and 4, columns −1 and 1, and ±1 where both meet: squares 4·4, 4·1 and 4·1."""
    split = split_variance([[-1 + 1, 1 - 1], [4 - 1 - 1, 4 + 1 + 1]])
    assert split is not None
    assert (split.rows, split.columns, split.rest) == pytest.approx((16 / 24, 4 / 24, 4 / 24))
    assert split_variance([[0.9, 0.9], [0.9, 0.9]]) is None
    with pytest.raises(BadValue, match="two rows and two columns"):
        split_variance([[1.0, 2.0]])


def test_a_grid_is_a_run_for_each_pair_and_is_found_again(tmp_path, capsys):
    settings: dict[str, Any] = SMALL | {"count": 2, "out": tmp_path}
    grid = seed_grid(tiny_model, DATA, **settings)
    assert len({search.run for row in grid.searches for search in row}) == 4
    for i, j in itertools.product(range(2), repeat=2):
        run = searched(tmp_path, seed_weights=i, seed_data=j)
        assert run.path == grid.searches[i][j].run
        assert grid.metrics[i, j] == run.read_record(0, 1)["test"]
        assert grid.at(0).metrics[i, j] == run.read_record(0, 0)["test"]
    capsys.readouterr()
    again = seed_grid(tiny_model, DATA, level=1, **settings)
    assert np.array_equal(again.metrics, grid.metrics) and "trained" in capsys.readouterr().err
    text = str(grid)
    assert "test accuracy %, level 1 (density" in text and "weights 1" in text and "data 1" in text
    assert "Expected best of n: 1: " in text
    assert grid.best_of(1) == pytest.approx(grid.metrics.mean())


def test_a_seed_that_nothing_draws_from_has_no_share(tmp_path):
    settings: dict[str, Any] = SMALL | {"criterion": "magnitude", "count": 2, "out": tmp_path}
    grid = seed_grid(tiny_model, DATA, over=("data", "mask"), **settings)
    assert np.array_equal(grid.metrics[:, 0], grid.metrics[:, 1])
    assert grid.split is None or grid.split.columns == grid.split.rest == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"over": ("weights",)}, "over names two of weights, mask, data"),
        ({"over": ("weights", "dat")}, "did you mean 'data'"),
        ({"over": ("data", "data")}, "over names two of"),
        ({"count": 1}, "count must be 2 or more"),
        ({"replicates": 2}, "a grid says replicates by itself"),
        ({"seed_data": 2}, "a grid says seed_data by itself"),
    ],
)
def test_a_grid_that_cannot_be_is_one_line(asked, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        seed_grid(tiny_model, DATA, out=tmp_path, **(SMALL | asked))


def test_a_trainer_may_report_on_a_copy_of_its_job_where_that_says_which():
    params = {"w": np.zeros(2)}
    jobs = {seed: Job(params, Mask.dense({"w": (2,)}), seed, Budget(0, 5)) for seed in (3, 4)}
    recorder = Recorder(Display(False, None))
    recorder.level_started(0, jobs)
    recorder.stepped(dataclasses.replace(jobs[3]), 2)
    shared = {seed: dataclasses.replace(job, seed=0) for seed, job in jobs.items()}
    recorder.level_started(0, shared)
    recorder.stepped(shared[4], 2)
    with pytest.raises(BadValue, match="a copy of none or of several"):
        recorder.stepped(dataclasses.replace(shared[4]), 2)
