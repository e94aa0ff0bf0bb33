"""Linear mode connectivity and instability: hand-computed barriers, exact ends, and what two tickets must share."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lottery import Data, Metric
from lottery.cli.app import run as command
from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.metric import Measure
from lottery.networks.objectives.objective import objective_for
from lottery.results.intervals import pairs_interval, t_interval
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.runs.reading import read_search
from lottery.runs.ticket import Ticket
from lottery.search.levels.progress import Display
from lottery.search.preparing.preparing import Request
from lottery.search.running import run_search
from lottery.state.tensors import state_of
from lottery.studies.analyses import ANALYSES, Study
from lottery.studies.connection.tickets import connect
from lottery.studies.instability.report import (
    LevelStability,
    Stability,
    stability_figure,
    stability_json,
    stability_table,
)
from lottery.studies.instability.running import copy_seed, instability
from lottery.studies.measures.connectivity import interpolate, line_between, mask_overlap
from lottery.studies.reopening import reopen
from lottery.studies.view import TorchView
from pruning.errors import BadValue, ConfigMismatch, MaskMismatch
from pruning.mask import Mask
from tests.lottery.helpers import assert_same_arrays, blobs, rewrite_record, tiny_model


def view_of(model, train, test=None, metric=None):
    part = Tensors(*train)
    parts = Parts(part, part, None if test is None else Tensors(*test), "tiny")
    return TorchView(model, parts, objective_for(train[1], metric=metric), torch.device("cpu"))


def trained_like(seed):
    """A tiny model's state with running statistics of its own."""
    rng = np.random.Generator(np.random.PCG64(seed))
    state = state_of(tiny_model(seed))
    state["1.running_mean"] = rng.standard_normal(8).astype(np.float32)
    state["1.running_var"] = rng.random(8).astype(np.float32) + 0.5
    state["1.num_batches_tracked"] = np.array(seed + 7)
    return state


@pytest.fixture
def tiny():
    x, y = blobs(200)
    return view_of(tiny_model(), (torch.from_numpy(x), torch.from_numpy(y)))


def test_interpolation_is_linear_and_exact_at_its_ends():
    a, b = trained_like(0), trained_like(1)
    assert_same_arrays(interpolate(a, b, 0.0), a)
    end = interpolate(a, b, 1.0)
    assert_same_arrays({**end, "1.num_batches_tracked": 0 * a["1.num_batches_tracked"]}, b | {
        "1.num_batches_tracked": 0 * a["1.num_batches_tracked"]
    })  # fmt: skip
    assert end["1.num_batches_tracked"] == 7  # an integer is never mixed
    middle = interpolate(a, b, 0.25)
    np.testing.assert_allclose(middle["0.weight"], 0.75 * a["0.weight"] + 0.25 * b["0.weight"], rtol=1e-6)
    assert middle["0.weight"].dtype == np.float32
    third = interpolate(a, a, 1 / 3)
    assert_same_arrays(third, a)


def test_networks_of_different_architectures_are_refused():
    a = trained_like(0)
    with pytest.raises(MaskMismatch, match=r"only one has '4\.weight' \(the nearest is '4\.weights'\)"):
        interpolate(a, {**{n: v for n, v in a.items() if n != "4.weight"}, "4.weights": a["4.weight"]}, 0.5)
    with pytest.raises(MaskMismatch, match=r"'4\.bias' has shapes \(3,\) and \(2,\)"):
        interpolate(a, {**a, "4.bias": np.zeros(2, np.float32)}, 0.5)


def product_view(metric=None):
    """w₂·w₁·x with the target x: the loss is (1 − w₁w₂)², and (−1, −1) is as good as (1, 1)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    ones = torch.ones(3, 1).double()
    return view_of(model, (ones, ones), metric=metric)


def product(first, second):
    return {"0.weight": np.array([[first]]), "1.weight": np.array([[second]])}


def test_the_barrier_of_a_product_by_hand():
    line = line_between(product_view(), product(1.0, 1.0), product(-1.0, -1.0), points=5, parts=("train",))
    assert line.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    curve = line.curves["train"]
    np.testing.assert_allclose(curve.loss, [0, 0.5625, 1, 0.5625, 0])
    assert curve.loss_barrier == curve.barrier == 1
    np.testing.assert_array_equal(curve.error, curve.metric)  # of a squared error, smaller is better
    uneven = line_between(product_view(), product(2.0, 1.0), product(-1.0, -1.0), points=3, parts=("train",))
    # (1, 0.5, 0) of one and (…): ends 1 and 0, middle (1 − 0.5·0)² = 1
    assert uneven.curves["train"].loss_barrier == pytest.approx(1 - 0.5)


def test_a_better_middle_is_no_barrier_and_directions_are_respected():
    near, far = product(1.0, 0.5), product(1.0, 1.5)
    line = line_between(product_view(), near, far, points=3, parts=("train",))
    assert line.curves["train"].loss_barrier == 0
    gain = Metric("gain", lambda outputs, targets: outputs.mean(), higher_is_better=True)
    np.testing.assert_allclose(
        line_between(product_view(gain), near, far, points=3, parts=("train",)).curves["train"].error, [-0.5, -1, -1.5]
    )


def test_a_network_and_itself_have_exactly_no_barrier(tiny):
    state = trained_like(3)
    line = line_between(tiny, state, state, points=7, parts=("train",))
    curve = line.curves["train"]
    assert (curve.barrier, curve.loss_barrier) == (0, 0)
    assert len(set(curve.loss.tolist())) == 1
    np.testing.assert_array_equal(curve.error, 1 - curve.metric)


def test_batch_norm_statistics_between_the_ends_are_those_of_the_training_data(tiny):
    a, b = trained_like(0), trained_like(1)
    line = line_between(tiny, a, b, points=3, parts=("train",))
    x, y = tiny.parts.train.inputs, tiny.parts.train.targets
    middle = interpolate(a, b, 0.5)
    hidden = x @ torch.from_numpy(middle["0.weight"]).T + torch.from_numpy(middle["0.bias"])
    middle["1.running_mean"], middle["1.running_var"] = hidden.mean(0).numpy(), hidden.var(0).numpy()
    network = tiny.network(middle)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(network(x), y).item()
    assert line.curves["train"].loss[1] == pytest.approx(expected, rel=1e-5)
    assert line.curves["train"].loss[0] == tiny.measure(tiny.network(a), tiny.parts.train)[0]
    # few examples give other statistics; the caller's random state is its own
    before = torch.get_rng_state()
    other = line_between(tiny, a, b, points=3, parts=("train",), statistics_examples=1)
    assert torch.equal(before, torch.get_rng_state())
    assert other.curves["train"].loss[0] == line.curves["train"].loss[0]


def test_batch_norms_with_the_same_statistics_at_both_ends_keep_them(tiny):
    a = trained_like(0)
    b = {**a, "0.weight": -a["0.weight"]}
    line = line_between(tiny, a, b, points=3, parts=("train",))
    expected = tiny.measure(tiny.network(interpolate(a, b, 0.5)), tiny.parts.train)[0]
    assert line.curves["train"].loss[1] == expected


def test_weights_that_both_masks_remove_stay_removed():
    masks = (Mask({"0.weight": [[1]], "1.weight": [[0]]}), Mask({"0.weight": [[0]], "1.weight": [[0]]}))
    line = line_between(product_view(), product(1.0, 1.0), product(3.0, 3.0), masks=masks, points=3, parts=("train",))
    np.testing.assert_array_equal(line.curves["train"].loss, 1)
    assert line.overlap == 0
    assert mask_overlap(Mask({"a": [1, 1]}), Mask({"a": [1, 0], "b": [1, 0]})) == pytest.approx(2 / 4)


def test_what_cannot_be_asked_of_a_line(tiny):
    state = trained_like(0)
    with pytest.raises(BadValue, match="points must be 2 or more"):
        line_between(tiny, state, state, points=1, parts=("train",))
    with pytest.raises(BadValue, match="tiny has no test part"):
        line_between(tiny, state, state)
    with pytest.raises(BadValue, match="'tset': expected one of train, validation, test"):
        line_between(tiny, state, state, parts=("tset",))


def test_intervals_by_hand():
    low, high = t_interval([1.0, 2.0, 3.0]) or (0, 0)
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))
    assert (t_interval([1.0, 2.0, 3.0], least=0) or (1, 1))[0] == 0
    # leaving one of three things out leaves one pair: 1, 2, 3 again, with variance 2/3 · 2
    low, high = pairs_interval([1.0, 2.0, 3.0], 3) or (0, 0)
    assert high - low == pytest.approx(2 * 4.302653 * math.sqrt(4 / 3))
    assert pairs_interval([1.0], 2) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two replicates of three levels on digits, rewound to step 5; and one by evolution from the same weights."""
    out = tmp_path_factory.mktemp("runs")
    settings = {"levels": 2, "steps": 30, "replicates": 2, "rewind": "5", "tolerance": 1.0, "split_seed": 0}
    gd = run_search(Request(Given("mlp", "digits"), settings, out=out), Display(False, None))
    settings = {"trainer": "es", "levels": 0, "generations": 3, "population": 4, "split_seed": 0}
    es = run_search(Request(Given("mlp", "digits"), settings, out=out), Display(False, None))
    return gd, es


def ticket_of(search, seed, level):
    return search.run / f"seed-{seed}" / f"level-{level:02d}"


@pytest.fixture
def lottery(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        code = command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_tickets_are_connected_from_the_command_line(lottery, runs, tmp_path):
    gd, _ = runs
    paths = [ticket_of(gd, 0, 1), ticket_of(gd, 0, 2), ticket_of(gd, 1, 2)]
    code, out, err = lottery("connect", *paths, "--points", 4, "--figure", tmp_path / "c.png", "--json")
    found = json.loads(out)
    assert code == 0 and (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [
        (str(paths[i]), str(paths[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert [pair["same_rewind_point"] for pair in found["pairs"]] == [True, False, False]
    assert err.count("lottery: warning:") == 1 and "2 of 3 pairs" in err and "have different rewind points" in err
    first = found["pairs"][0]
    assert first["overlap"] == pytest.approx(0.8, abs=1e-3)
    test = first["parts"]["test"]
    # the ends are the tickets as they were measured in training
    assert test["metric"][0] == pytest.approx(gd.levels[1].replicates[0].test)
    assert test["metric"][-1] == pytest.approx(gd.levels[2].replicates[0].test)
    assert test["barrier"] == pytest.approx(max(test["error"]) - (test["error"][0] + test["error"][-1]) / 2)
    assert first["parts"].keys() == {"train", "test"} and len(found["alphas"]) == 4


def test_a_dense_network_passed_through_the_rewind_point(runs):
    gd, _ = runs
    found = connect([ticket_of(gd, 0, 0), ticket_of(gd, 0, 2)], points=2, parts=("validation",))
    assert found.pairs[0].same_rewind_point and not found.warnings()


def test_an_evolved_ticket_and_a_trained_one(runs):
    gd, es = runs
    found = connect([ticket_of(es, 0, 0), ticket_of(gd, 0, 0)], points=3)
    assert found.pairs[0].same_rewind_point  # both began at the same initialization
    assert found.pairs[0].line.curves["test"].metric[0] == pytest.approx(es.levels[0].replicates[0].test, abs=1e-6)


def test_tickets_that_cannot_be_connected(lottery, runs, tmp_path):
    gd, _ = runs
    a, b = ticket_of(gd, 0, 1), tmp_path / "b"
    Ticket.load(ticket_of(gd, 0, 2)).save(b)
    assert lottery("connect", a)[0] == 2
    code, _, err = lottery("connect", a, b, "--part", "tets")
    assert (code, err.count("\n")) == (2, 1) and "'tets'" in err
    dataclasses.replace(Ticket.load(a), trained_params=None).save(b)
    code, _, err = lottery("connect", a, b)
    assert code == 2 and "without trained weights" in err
    record = Ticket.load(ticket_of(gd, 0, 2)).save(b).info
    for key, value in (("data", "other"), ("metric", {**record["metric"], "name": "loss"})):
        rewrite_record(b, **{**record, key: value})
        with pytest.raises(BadValue, match=f"their {key} differs"):
            connect([a, b])
    other = trained_like(0)
    mask = Mask({"0.weight": np.ones((8, 6), bool)})
    Ticket(mask, other, other, {**record, "layers": {"0.weight": 1.0}}).save(tmp_path / "c")
    with pytest.raises(MaskMismatch, match="different architectures"):
        connect([a, tmp_path / "c"])
    with pytest.raises(ConfigMismatch, match="other data than"):
        connect([a, ticket_of(gd, 0, 2)], data=Data(train=(np.zeros((60, 1, 8, 8), "float32"), np.arange(60) % 10)))


def test_the_analysis_measures_between_levels_and_between_replicates(runs):
    gd, _ = runs
    study = Study(gd, RunDirectory(gd.run), lambda: reopen(gd.run)[1])
    found = ANALYSES["connectivity"].value(study)
    assert found.arrays["level_barrier"].shape == (2, 2)
    assert found.arrays["replicate_barrier"].shape == (3, 1)
    ends = [study.trained(1, level) for level in (1, 2)]
    line = line_between(study.view, ends[0], ends[1], points=11, parts=("test",), examples=1000)
    assert found.arrays["level_barrier"][1, 1] == line.curves["test"].barrier
    np.testing.assert_allclose(found.arrays["level_overlap"], 0.8, atol=1e-3)
    assert np.isfinite(found.arrays["level_interval"]).all()
    assert np.isnan(found.arrays["replicate_interval"]).all()  # one pair
    assert found.facts["replicates_share_rewind_point"] is False and "share no rewind point" in found.text
    json.dumps(found.as_json())


def test_copies_differ_in_data_order_only(runs):
    gd, _ = runs
    found = instability(gd.run, levels=[0, 2], copies=2, points=3)
    assert [level.level for level in found.levels] == [0, 2]
    assert found.levels[1].error["test"].shape == (2, 1)
    run = RunDirectory(gd.run)
    copies = [RunDirectory(gd.run / "instability" / f"copy-{number}") for number in range(2)]
    for copy in copies:
        # at the rewind point, from step 5 on, also where the dense network begins
        assert_same_arrays(copy.read_rewound(1, 2), run.read_rewound(1, 2))
        assert_same_arrays(copy.read_rewound(1, 0), run.read_trained(1, 0).snapshots[5])
        assert copy.read_mask(1, 2) == run.read_mask(1, 2)
        assert copy.read_record(1, 2)["steps"] == copy.read_record(1, 0)["steps"] == 25
    weights = [copy.read_trained(1, 2).params["fc1.weight"] for copy in (*copies, run)]
    assert len({array.tobytes() for array in weights}) == 3
    assert len({copy_seed(s, level, c) for s in range(3) for level in range(3) for c in range(3)}) == 27
    line = connect([copy.level_path(1, 2) for copy in copies], points=3)
    assert line.pairs[0].line.curves["test"].barrier == found.levels[1].error["test"][1, 0]
    assert line.pairs[0].same_rewind_point
    # copies do not disturb the reading of the run
    assert len(read_search(gd.run).levels) == 3


def test_the_same_analysis_resumes_and_trains_nothing_twice(runs, lottery):
    gd, _ = runs
    arguments = ("instability", gd.run, "--levels", "2", "--copies", 3, "--points", 3, "--replicates", "0", "--json")
    code, out, _ = lottery(*arguments)
    first = json.loads(out)
    assert code == 0 and first["levels"][0]["parts"]["test"]["n"] == 1
    lost, kept = (gd.run / "instability" / f"copy-{c}" / "seed-0" / "level-02" for c in (2, 1))
    bits, touched = (lost / "trained.safetensors").read_bytes(), (kept / "config.json").stat().st_mtime_ns
    shutil.rmtree(lost)
    again = json.loads(lottery(*arguments)[1])
    assert again == first and (lost / "trained.safetensors").read_bytes() == bits
    assert (kept / "config.json").stat().st_mtime_ns == touched
    assert json.loads((gd.run / "instability" / "summary.json").read_text())["levels"] == first["levels"]
    assert (gd.run / "instability.png").exists()


def test_instability_is_reported_as_plain_data_a_table_and_a_figure(tmp_path):
    def level(number, density, errors):
        barriers = {"test": np.array([[error] for error in errors])}
        return LevelStability(number, density, (0, 1), barriers, barriers)

    levels = (level(0, 1.0, (0.05, 0.07)), level(2, 0.25, (0.01, 0.01)))
    found = Stability(tmp_path, levels, Measure("accuracy", is_fraction=True), copies=2, points=3)
    table = [line.split() for line in stability_table(found).splitlines()[1:3]]
    assert [(row[0], row[1], row[3], row[-2]) for row in table] == [
        ("0", "100.00%", "6.000", "no"),
        ("2", "25.00%", "1.000", "yes"),
    ]
    plain = json.loads(json.dumps(stability_json(found)))
    assert [(one["level"], one["parts"].keys()) for one in plain["levels"]] == [(0, {"test"}), (2, {"test"})]
    (axes,) = stability_figure(found).axes
    drawn = {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert drawn["test (n = 2)"] == [[100.0, pytest.approx(6.0)], [25.0, pytest.approx(1.0)]]


def test_what_instability_cannot_be_asked(runs):
    gd, _ = runs
    with pytest.raises(BadValue, match="copies must be 2 or more"):
        instability(gd.run, copies=1)
    with pytest.raises(BadValue, match="level 7: .* has levels 0 to 2"):
        instability(gd.run, levels=[7])
    with pytest.raises(BadValue, match="replicate 4: level 0 of .* has trained replicates 0, 1"):
        instability(gd.run, levels=[0], replicates=[4])
    # said before anything is trained: level 1 has no copies yet
    with pytest.raises(BadValue, match="'tset': expected one of"):
        instability(gd.run, levels=[1], parts=["tset"])
    assert not list(gd.run.glob("instability/*/seed-*/level-01"))
