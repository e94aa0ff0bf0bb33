"""A verdict on speed is given where timings can be told apart, and refused where they cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lottery.bench import row
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.spread import Spread, told_apart
from pruning.sparse.choosing.timing import duel
from pruning.sparse.module import sparse_module
from pruning.sparse.network import inference as inference_file
from pruning.sparse.network.report import SparseReport, layer_reports

FAST, SLOW = Spread.of([1.0, 1.1, 1.2]), Spread.of([2.0, 2.2, 2.4])
WIDE = Spread.of([0.5, 1.0, 2.1, 3.0, 9.0])


def report(way: str, dense: Spread | None, rival: Spread | None) -> SparseReport:
    seconds = {"dense_seconds": None, "sparse_seconds": None}
    if dense is not None and rival is not None:
        seconds = {"dense_seconds": dense.median, "sparse_seconds": (dense if way == "dense" else rival).median}
    place: dict[str, Any] = {"batch": (8, 4), "device": "cpu", "precision": "float32", "threads": 1, "asked": None}
    steps = {"step_dense_seconds": None, "step_sparse_seconds": None}
    return SparseReport(
        layers=(), way=way, opaque={}, **seconds, **steps, **place, dense_spread=dense, rival_spread=rival
    )


def test_one_outlier_does_not_make_two_timings_alike():
    assert told_apart(SLOW, FAST) == "faster" and told_apart(FAST, SLOW) == "slower"
    assert told_apart(SLOW, WIDE) == told_apart(WIDE, FAST) == "cannot tell"
    once_disturbed = Spread.of([1.0, 1.0, 1.1, 1.1, 50.0])
    assert told_apart(SLOW, once_disturbed) == "faster"


def test_apart_is_a_verdict_with_its_range():
    found = report("sparse", SLOW, FAST)
    assert found.told == "faster" and found.speedup == pytest.approx(2.0)
    assert "Sparsity pays" in found.verdict and "2.0 times" in found.verdict and "(1.8 to 2.2, by" in found.verdict
    assert "1050.000 to 1150.000 ms" in found.text()
    slower = report("dense", FAST, SLOW)
    assert slower.verdict.startswith("Sparsity does not pay") and slower.speedup == 1


@pytest.mark.parametrize("way", ["dense", "sparse", "compacted"])
def test_overlap_is_no_verdict(way):
    found = report(way, SLOW, WIDE)
    assert found.told == "cannot tell" and found.speedup == 1
    assert found.verdict.startswith("Cannot tell on this machine now whether sparsity pays")
    assert SLOW.text() in found.verdict and WIDE.text() in found.verdict and "pays on cpu: " not in found.verdict


@pytest.mark.parametrize(("way", "dense", "rival"), [("dense", SLOW, FAST), ("sparse", FAST, SLOW)])
def test_two_measurements_that_contradict_each_other_are_no_verdict(way, dense, rival):
    found = report(way, dense, rival)
    assert found.told == "cannot tell" and found.speedup == 1 and found.verdict.startswith("Cannot tell")


def test_nothing_else_to_run_and_nothing_measured_stay_what_they_were():
    assert report("sparse", None, None).told is None and "nothing was measured" in report("sparse", None, None).verdict
    alone = replace(report("dense", None, None), dense_seconds=1.0, sparse_seconds=1.0)
    assert alone.verdict.startswith("Sparsity does not pay")


def test_the_rows_of_json_carry_the_spread():
    plain = report("sparse", SLOW, WIDE).as_json()
    assert plain["told"] == "cannot tell" and plain["speedup"] == 1
    assert plain["dense_spread"] == SLOW.as_json() and plain["rival_spread"]["upper"] == 3.0
    dense, sparse = [2.0, 2.1, 2.2], [0.5, 2.0, 9.0]
    found = row("x", "run", sparse, dense)
    assert found["told"] == "cannot tell" and found["spread"]["most"] == 9.0
    assert found["baseline_spread"] == Spread.of(dense).as_json()
    assert row("x", "run", dense, dense)["told"] == "baseline"


def test_a_duel_goes_pair_by_pair():
    order: list[str] = []
    one, other = duel(lambda: order.append("a"), lambda: order.append("b"), torch.device("cpu"), 0.0)
    assert one.runs == other.runs >= 5
    pairs = order[2:]  # after the round that warms up
    assert pairs == ["a", "a", "b", "b"] * one.runs


def test_a_win_is_measured_twice_before_it_counts(monkeypatch):
    """On a busy machine one measurement may be far off: in doubt dense runs."""
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    mask = Mask({"0.weight": torch.eye(4, 6).bool().numpy()})
    asked: list[set[str]] = []

    def fastest(runs: dict[str, Any], *_: Any) -> tuple[str, dict[str, float]]:
        asked.append(set(runs))
        winner = "compacted" if len(asked) == 1 else "dense"
        return winner, {name: 1.0 if name == winner else 2.0 for name in runs}

    monkeypatch.setattr(inference_file, "fastest", fastest)
    module = sparse_module(network, mask, torch.ones(8, 6), choosing=Choosing(cache=None, seconds=0.0))
    assert asked[1] == {"dense", "compacted"} and module.report.way == "dense" and module.report.speedup == 1
    assert module.report.dense_spread is not None and module.report.rival_spread is not None


def test_a_tensor_that_compaction_left_nothing_of_is_reported_with_the_reason():
    mask = Mask({"kept": [[1, 0], [0, 1]], "gone": [[0, 0]]})
    recipe = inference_file.run_itself(Mask({"kept": mask["kept"]}), "it writes into its inputs")
    kept, gone = sorted(layer_reports(recipe, mask, width=4), key=lambda row: row.name, reverse=True)
    assert (kept.backend, kept.density, kept.dense_bytes, kept.reason) == (
        "dense",
        0.5,
        16,
        "it writes into its inputs",
    )
    assert (gone.backend, gone.density, gone.sparse_bytes) == ("none", 0.0, 0)
    assert gone.reason.startswith("not in what runs")
