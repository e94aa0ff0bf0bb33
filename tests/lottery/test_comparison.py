"""Several searches side by side."""

from __future__ import annotations

import json

import pytest

from lottery import Data, find_ticket
from lottery.cli.app import run
from lottery.comparison import comparison_table, labels
from pruning.errors import BadValue
from tests.lottery.helpers import blobs, tiny_model


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


def test_the_table_has_every_level_of_every_search(searches):
    lines = comparison_table(searches).splitlines()
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
