"""What a repeated command says: what was stored and is not trained again, and where the rest goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lottery import Data, Ticket, ablate, find_ticket, instability, train_ticket, transfer
from lottery.cli.app import run
from lottery.search.levels.storing import store
from lottery.state.machine.telling import numbers, seeds_follow, what_follows
from tests.lottery.helpers import blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
QUICK = {"levels": 2, "steps": 20, "tolerance": 1.0, "quiet": True}
GIVEN = {"model": tiny_model, "data": DATA}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of two replicates that differ in their learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    found = [find_ticket(tiny_model, DATA, out=folder, replicates=2, lr=lr, **QUICK).search for lr in (0.01, 0.02)]
    return [search.run for search in found if search is not None]


@pytest.fixture
def runs(made, tmp_path):
    """The same two, to be changed."""
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in made]


def said(capsys) -> str:
    """The one line on standard error that is ours; empty where there is none."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "starts over)" in line]
    assert len(lines) <= 1, lines
    return "".join(lines)


def test_a_search_that_is_complete_says_that_nothing_was_trained(runs, capsys):
    capsys.readouterr()
    find_ticket(tiny_model, DATA, out=runs[0].parent, replicates=2, lr=0.01, **QUICK)
    line = said(capsys)
    assert line.startswith(f"lottery: {runs[0]}: complete, a stored result, made 20")
    assert line.endswith("; nothing was trained (force=True or --force starts over)")


def test_a_search_that_was_cut_off_says_at_which_level_each_seed_goes_on(runs, capsys):
    for lost in ("seed-0/level-02", "seed-1/level-01", "seed-1/level-02"):
        shutil.rmtree(runs[0] / lost)
    find_ticket(tiny_model, DATA, out=runs[0].parent, replicates=3, lr=0.01, **QUICK)
    line = said(capsys)
    assert f"{runs[0]}: resumed, 3 of 9 trainings are stored, made 20" in line
    assert "; seed 1 goes on at level 1 of 2, seed 0 goes on at level 2 of 2, seed 2 begins (" in line


def test_more_levels_of_the_same_search_are_another_and_a_first_search_says_nothing(tmp_path, capsys):
    shorter: dict[str, Any] = {**QUICK, "levels": 1}
    find_ticket(tiny_model, DATA, out=tmp_path, **shorter)
    assert said(capsys) == ""


def test_an_evolution_that_was_cut_off_in_its_first_level_says_that_it_goes_on_from_a_checkpoint(
    tmp_path, capsys, monkeypatch
):
    settings = {"levels": 1, "tolerance": 1.0, "trainer": "es", "population": 4, "generations": 4, "quiet": True}

    def cut_off(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr("lottery.search.levels.engine.store", cut_off)
    with pytest.raises(KeyboardInterrupt):
        find_ticket(tiny_model, DATA, out=tmp_path, **settings)
    assert said(capsys) == "" and list(tmp_path.glob("*/checkpoint-*"))
    monkeypatch.setattr("lottery.search.levels.engine.store", store)
    find_ticket(tiny_model, DATA, out=tmp_path, **settings)
    line = said(capsys)
    assert "resumed, no training is complete; seed 0 goes on at level 0 of 1, from its last checkpoint (" in line


def test_a_ticket_that_was_trained_again_is_said_to_be_stored(runs, tmp_path, capsys):
    ticket = Ticket.load(runs[0] / "seed-0" / "level-02")
    for replicates, expected in ((1, None), (1, "nothing was trained"), (2, "seed 1 begins, seed 0 is complete")):
        settings = {"steps": 10, "replicates": replicates}
        train_ticket(ticket, tiny_model, DATA, settings=settings, out=tmp_path / "again")
        line = said(capsys)
        assert line == "" if expected is None else expected in line and str(tmp_path / "again") in line


def test_controls_say_which_follow(runs, capsys):
    ablate(runs[0], "random-mask", levels=[2], **GIVEN)
    assert said(capsys) == ""
    ablate(runs[0], ["random-mask", "reinit"], **GIVEN)
    line = said(capsys)
    assert f"{runs[0] / 'ablations'}: resumed, 2 of 8 trainings are stored" in line
    assert "; now random-mask (level 1 of seeds 0, 1), reinit (levels 1, 2 of seeds 0, 1) (deleting" in line
    ablate(runs[0], ["random-mask", "reinit"], **GIVEN)
    assert "complete, a stored result" in (line := said(capsys)) and "; nothing was trained (deleting" in line


def test_copies_say_which_follow_and_that_barriers_are_measured_again(runs, capsys):
    asked = {"levels": [2], "points": 2, "replicates": [0], **GIVEN}
    instability(runs[0], copies=2, **asked)
    assert said(capsys) == ""
    instability(runs[0], copies=3, **asked)
    assert "2 of 3 trainings are stored" in (line := said(capsys)) and "; now copy 2 (level 2 of seed 0) (" in line
    instability(runs[0], copies=3, **asked)
    assert "; nothing was trained, the barriers are measured again (" in said(capsys)


def test_a_transfer_says_it_once_for_the_whole_table(runs, tmp_path, capsys):
    out, data = tmp_path / "transfer", [DATA, DATA]
    transfer(runs, level=1, model=tiny_model, data=data, out=out)
    assert said(capsys) == ""
    (lost,) = out.glob(f"{runs[0].name}/random/seed-1/level-01")
    shutil.rmtree(lost)
    transfer(runs, level=1, model=tiny_model, data=data, out=out)
    line = said(capsys)
    assert f"{out}: resumed, 7 of 8 trainings are stored" in line
    assert "; now random masks as " in line and "(level 1 of seed 1) (" in line
    transfer(runs, level=1, model=tiny_model, data=data, out=out)
    assert f"{out}: complete, a stored result" in (line := said(capsys)) and "; nothing was trained (" in line


def test_what_trains_nothing_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["prune", "--levels", "1", "--steps", "20", "--set", "tolerance=1.0", "--quiet"]) == 0
    folder = Path(capsys.readouterr().out.strip()).parents[1]
    ends = [str(folder / "seed-0" / f"level-0{level}") for level in (0, 1)]
    assert run(["connect", *ends, "--points", "2", "--part", "test"]) == 0
    assert "; nothing was trained, and no result is stored." in capsys.readouterr().out
    assert run(["show", str(folder), "--analysis", "layer-density"]) == 0
    assert "the levels that are stored; nothing was trained." in capsys.readouterr().out


def test_numbers_and_names_are_grouped():
    assert numbers([]) == "" and numbers([3, 1, 2, 9, 9]) == "1–3, 9"
    assert seeds_follow({0: 3, 1: 3}, 3) == "seeds 0, 1 are complete"
    assert seeds_follow({0: 1, 1: 0}, 3, checkpoint=True) == (
        "seed 0 goes on at level 1 of 2, seed 1 goes on at level 0 of 2, from its last checkpoint"
    )
    assert what_follows([]) == "now "
