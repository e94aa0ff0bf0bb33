"""Several searches side by side."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lottery import Data, find_ticket
from lottery.cli.app import run
from lottery.results.comparison import (
    compare,
    comparison_table,
    comparison_text,
    difference_table,
    labels,
    telling_names,
)
from pruning.errors import BadValue
from tests.lottery.helpers import blobs, tiny_model
from tests.lottery.test_statistics import level


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")

    def search(**settings):
        data = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
        found = find_ticket(
            tiny_model, data, **({"levels": 2, "steps": 20, "tolerance": 1.0, "out": out} | settings)
        ).search
        assert found is not None
        return found

    return [search(), search(criterion="random", replicates=2), search(levels=1, criterion="snr")]


def test_a_search_is_called_by_what_tells_it_apart(searches):
    assert labels(searches) == ["magnitude", "random", "snr"]


def test_every_setting_that_differs_is_named():
    base = {"criterion": "magnitude", "lr": 0.1, "steps": 100, "levels": 2, "scope": "global"}
    other = {**base, "lr": 0.2, "steps": 50}
    assert telling_names([base, other], ["criterion"]) == ["lr 0.1, steps 100", "lr 0.2, steps 50"]
    both = telling_names([base, {**other, "criterion": "snr"}], ["criterion"])
    assert both == ["magnitude, lr 0.1, steps 100", "snr, lr 0.2, steps 50"]
    # what every table shows beside the name is named where nothing else differs
    assert telling_names([base, {**base, "levels": 3}], ["criterion"]) == ["levels 2", "levels 3"]


def test_the_table_has_every_level_of_every_search(searches):
    lines = str(comparison_table(searches)).splitlines()
    assert lines[0].split() == ["level", "density", "magnitude", "random", "snr"]
    assert [line.split()[:2] for line in lines[1:4]] == [["0", "100.00%"], ["1", "80.56%"], ["2", "63.89%"]]
    assert lines[3].split()[-1] == "–"
    level = searches[1].levels[2]
    assert f"{100 * level.test:.2f} [" in lines[3]
    assert lines[-1].endswith("replicates: 1 (magnitude), 2 (random), 1 (snr).")


def test_what_cannot_be_compared(searches):
    with pytest.raises(BadValue, match="differ in no setting"):
        labels([searches[0], searches[0]])
    other = find_ticket(levels=1, steps=20, tolerance=1.0, out=searches[0].run.parent).search
    assert other is not None
    with pytest.raises(BadValue, match="their model differs"):
        labels([searches[0], other])


@pytest.fixture
def three(searches):
    """Searches whose levels are made up: the second keeps 1 weight of 50 more, the third 20 % more at level 1."""
    levels = (
        (level(0.80, 0.82, 0.84, number=0, kept=100), level(0.70, 0.73, 0.74, kept=50)),
        (level(0.80, 0.82, 0.84, number=0, kept=100), level(0.75, 0.76, 0.80, kept=51)),
        (level(0.81, 0.84, 0.85, number=0, kept=100), level(0.60, 0.66, 0.63, kept=60)),
    )
    return [dataclasses.replace(search, levels=each) for search, each in zip(searches, levels, strict=True)]


def test_differences_at_matched_density_by_hand(three):
    rows = compare(three)
    assert [(row.label, row.level, row.other_level) for row in rows] == [
        ("random", 0, 0),
        ("snr", 0, 0),
        ("random", 1, 1),
        ("snr", 1, None),
    ]
    same, dense, pruned, gap = rows
    assert same.estimate is not None and same.estimate.value == 0 and (same.p, same.holm) == (None, None)
    # differences 0.05, 0.03, 0.06: mean 0.14 / 3, standard error 0.0088192, t = 5.2915 with 2 degrees of freedom
    assert pruned.estimate is not None and pruned.estimate.low is not None
    assert (pruned.estimate.value, pruned.estimate.n) == (pytest.approx(0.14 / 3), 3)
    assert pruned.estimate.low == pytest.approx(0.14 / 3 - 4.302653 * 0.0088192, abs=1e-6)
    assert pruned.p == pytest.approx(0.03390, abs=1e-4)
    assert pruned.sign_flip == 2 / 8
    # differences 0.01, 0.02, 0.01: t = 4 gives p = 0.0572; the smaller of two is doubled, the larger follows
    assert dense.p == pytest.approx(0.0572, abs=1e-4)
    assert (pruned.holm, dense.holm) == (pytest.approx(0.0678, abs=1e-4), pytest.approx(0.0678, abs=1e-4))
    assert gap.estimate is None and gap.reason == "its nearest level keeps 60.00%"


def test_levels_are_matched_by_weights_and_not_by_number(three):
    one, other, _ = three
    moved = dataclasses.replace(other, levels=(other.levels[0], level(0.9, 0.9, 0.9, kept=70), level(0.7, number=2)))
    row = compare([one, moved])[1]
    assert (row.level, row.other_level) == (1, 2)
    assert row.estimate is not None and (row.estimate.n, row.estimate.low, row.p) == (1, None, None)


def test_only_seeds_that_lived_in_both_are_paired(three):
    one, other, _ = three
    fewer = dataclasses.replace(other, levels=(other.levels[0], level(0.75, 0.76, 0.1, diverged=(2,))))
    none = dataclasses.replace(other, levels=(other.levels[0], level(0.75, diverged=(0,))))
    assert [row.estimate.n for row in compare([one, fewer]) if row.estimate] == [3, 2]
    assert compare([one, none])[1].reason == "no seed in common"


def test_another_reference(three):
    forth = compare(three[:2])[1].estimate
    back = compare(three[:2], reference=1)[1].estimate
    assert forth is not None and back is not None
    assert back.value == pytest.approx(-forth.value)
    for wrong, runs in ((2, three[:2]), (-1, three[:2]), (0, three[:1])):
        with pytest.raises(BadValue, match="two or more runs, one of them the reference"):
            compare(runs, wrong)


def test_the_table_of_differences(three):
    lines = difference_table(three).splitlines()
    assert "against magnitude" in lines[0]
    assert lines[3].endswith("+4.67 pp [+0.87, +8.46]    3   0.0339    0.0678  at 51.00%")
    assert lines[4].endswith("(its nearest level keeps 60.00%)")
    assert str(comparison_text(three)) == f"{comparison_table(three)}\n\n{difference_table(three)}"


def test_other_metrics_are_one_clear_line(three):
    other = dataclasses.replace(three[1], metric="reward")
    with pytest.raises(BadValue, match="cannot be compared: their metric differs .accuracy, reward.$"):
        comparison_text([three[0], other])


def test_from_the_command_line(searches, capsys, tmp_path):
    runs = [str(search.run) for search in searches]
    assert run(["show", *runs, "--figure", str(tmp_path / "all.png"), "--json"]) == 0
    captured = capsys.readouterr()
    assert [one["label"] for one in json.loads(captured.out)["runs"]] == ["magnitude", "random", "snr"]
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert "Mean test accuracy and 95 % interval" in captured.err


@pytest.mark.parametrize(("count", "option"), [(1, ["--figure", "a.png"]), (2, ["--plot"])])
def test_the_wrong_figure_for_so_many_runs(searches, capsys, count, option):
    assert run(["show", *(str(search.run) for search in searches[:count]), *option]) == 2
    assert "use --" in capsys.readouterr().err
