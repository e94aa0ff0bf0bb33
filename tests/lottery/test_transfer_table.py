"""Transfer tables: whose tickets train where."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from torch import nn

from lottery import Data, Ticket, find_ticket
from lottery.cli.app import run
from lottery.results.statistics import by_seed
from lottery.runs.directory import RunDirectory
from lottery.studies.transfer.report import transfer_table_text
from lottery.studies.transfer.table import transfer
from pruning.disk.files import read_json
from pruning.errors import BadValue, ConfigMismatch
from tests.lottery.helpers import assert_same_arrays, blobs, rewrite_record, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY = {"levels": 2, "steps": 20, "tolerance": 1.0, "replicates": 2}

SMALL = "tests.lottery.test_transfer_table:small"


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def search(model, data, **settings):
    found = find_ticket(model, data, **settings).search
    assert found is not None
    return found


@pytest.fixture(scope="module")
def across(tmp_path_factory):
    """Gradient descent and evolution on digits: their runs, and the table of the two."""
    out = tmp_path_factory.mktemp("across")
    common = {"levels": 1, "prune_rate": 0.5, "tolerance": 1.0, "replicates": 2, "out": out / "runs", "batch_size": 32}
    gd = search(SMALL, "digits", steps=12, **common)
    es = search(SMALL, "digits", trainer="es", generations=4, population=4, **common)
    return gd, es, transfer([gd.run, es.run], model=SMALL, out=out / "transfer")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Runs of a tiny model that were trained alike, and one that was not."""
    out = tmp_path_factory.mktemp("tiny") / "runs"
    alike = [search(tiny_model, DATA, out=out, **(TINY | {"tolerance": value})) for value in (0.9, 1.0)]
    return [*alike, search(tiny_model, DATA, out=out, **(TINY | {"steps": 30, "rewind": "10", "levels": 3}))]


def table_of(runs, out, **options):
    given = {"model": tiny_model, "data": [DATA] * len(runs), "out": out}
    return transfer([each.run for each in runs], **{**given, **options})


def test_the_diagonal_is_what_the_runs_had_measured(across):
    gd, es, table = across
    for number, found in enumerate((gd, es)):
        entry = table.tickets[number][number]
        assert entry.level == found.levels[1]
        assert entry.estimate.value == pytest.approx(found.levels[1].test)
        assert entry.against_own is None


def test_an_entry_is_the_sources_ticket_in_the_targets_way_of_training(across):
    gd, es, table = across
    for source, target in ((0, 1), (1, 0)):
        giver, taker = (gd, es)[source], (gd, es)[target]
        entry = table.tickets[source][target]
        assert [replicate.seed for replicate in entry.level.replicates] == [0, 1]
        for replicate in entry.level.replicates:
            moved = Ticket.load(replicate.path)
            own = Ticket.load(giver.levels[1].replicates[replicate.seed].path)
            assert moved.mask == own.mask
            assert_same_arrays(moved.params, own.params)
            assert moved.info["config"]["trainer"] == taker.config["trainer"]
            assert moved.info["transfer"]["source"] == giver.run.name
            assert moved.info["steps"] == (12, 4)[target]
            assert moved.trained_params is not None
            for name, keep in moved.mask.items():
                assert (moved.trained_params[name][~keep] == 0).all()
                assert (moved.trained_params[name] != moved.params[name])[keep].any()


def test_random_masks_have_the_targets_counts_at_its_rewind_weights(across):
    gd, es, table = across
    for target, found in enumerate((gd, es)):
        for replicate, own in zip(table.random[target].level.replicates, found.levels[1].replicates, strict=True):
            random, ticket = Ticket.load(replicate.path), Ticket.load(own.path)
            assert random.mask.counts() == ticket.mask.counts()
            assert random.mask.overlap(ticket.mask) < 0.5
            assert_same_arrays(random.params, ticket.params)
            assert random.info["criterion"] == "random"


def test_differences_are_paired_by_seed(across):
    *_, table = across
    entry, own, random = table.tickets[0][1], by_seed(table.tickets[1][1].level), by_seed(table.random[1].level)
    here = by_seed(entry.level)
    assert entry.against_own.value == pytest.approx(np.mean([here[s] - own[s] for s in (0, 1)]))
    assert entry.against_random.value == pytest.approx(np.mean([here[s] - random[s] for s in (0, 1)]))
    assert entry.against_own.n == 2
    assert table.random[1].against_random is None


def test_from_the_command_line_again_nothing_is_trained(across, capsys, tmp_path):
    gd, es, table = across
    files = sorted(table.out.rglob("config.json"))
    before = [path.stat().st_mtime_ns for path in files]
    command = ["transfer", str(gd.run), str(es.run), "--level", "1", "--out", str(table.out), "--json", "--trust"]
    assert run([*command, "--figure", str(tmp_path / "table.png")]) == 0
    captured = capsys.readouterr()
    assert [path.stat().st_mtime_ns for path in sorted(table.out.rglob("config.json"))] == before
    assert len(files) == 8
    found = json.loads(captured.out)
    assert [(row["tickets_of"], row["trained_as"], row["kind"]) for row in found["entries"]] == [
        ("gd", "gd", "own"),
        ("gd", "es, snes", "transferred"),
        ("es, snes", "gd", "transferred"),
        ("es, snes", "es, snes", "own"),
        (None, "gd", "random"),
        (None, "es, snes", "random"),
    ]
    assert found["entries"][1]["estimate"]["value"] == pytest.approx(table.tickets[0][1].estimate.value)
    assert str(transfer_table_text(table)) in captured.err
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_the_text_has_a_row_for_every_source_and_random_last(across):
    *_, table = across
    lines = str(transfer_table_text(table)).splitlines()
    assert [line[:8].strip() for line in lines[:4]] == ["tickets", "gd", "es, snes", "random"]
    assert "(own)" in lines[1] and "(own)" in lines[2] and "(own)" not in lines[3]


def test_a_ticket_trained_as_its_twin_gives_the_twins_bits(tiny, tmp_path):
    """The same ticket in the same frame: data order, budget and all are the target's own, so nothing differs."""
    table = table_of(tiny[:2], tmp_path)
    entry = table.tickets[0][1]
    against = entry.against_own
    assert against is not None
    assert (against.value, against.low, against.high) == (0, 0, 0)
    for moved, own in zip(entry.level.replicates, tiny[1].levels[2].replicates, strict=True):
        here, there = Ticket.load(moved.path), Ticket.load(own.path)
        assert here.trained_params is not None and there.trained_params is not None
        assert_same_arrays(here.trained_params, there.trained_params)


def test_the_target_lends_its_budget_and_its_level_the_density(tiny, tmp_path):
    table = table_of([tiny[0], tiny[2]], tmp_path, density=0.55)
    assert [member.level.level for member in table.members] == [2, 3]
    assert [replicate.steps for replicate in table.tickets[0][1].level.replicates] == [20, 20]
    assert table.tickets[1][0].level.kept == tiny[2].levels[3].kept
    assert "These densities differ" in str(transfer_table_text(table))
    record = RunDirectory(table.tickets[1][0].level.replicates[0].path.parent.parent).read_record(0, 2)
    assert record["transfer"]["source_level"] == 3


def test_a_training_of_another_ticket_is_never_taken(tiny, tmp_path):
    table = table_of(tiny[:2], tmp_path)
    path = table.tickets[0][1].level.replicates[0].path
    rewrite_record(path, transfer={**read_json(path / "config.json")["transfer"], "identity": "another"})
    with pytest.raises(ConfigMismatch, match="of another ticket or run; use another --out"):
        table_of(tiny[:2], tmp_path)


def test_runs_of_an_earlier_version_that_split_by_the_seed_are_compared_too(tiny, tmp_path):
    for number, found in enumerate(tiny[:2]):
        old = tmp_path / "old" / str(number)
        shutil.copytree(found.run, old)
        for level in old.glob("seed-*/level-*"):
            rewrite_record(level, config={**read_json(level / "config.json")["config"], "split_seed": None})
    table = transfer(
        [tmp_path / "old" / "0", tmp_path / "old" / "1"], model=tiny_model, data=[DATA, DATA], out=tmp_path / "out"
    )
    now = table_of(tiny[:2], tmp_path / "now")
    assert table.tickets[0][1].level.test == now.tickets[0][1].level.test


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.5, "level": 1}, "give density or level, not both"),
        ({"density": 90}, "density 90 is not a fraction: write 0.9 for 90 %"),
        ({"level": 0}, "there is no ticket of level 0; it has levels 1 to 2"),
        ({"data": [DATA]}, "one data set for each of the 2 runs, not 1"),
    ],
)
def test_wrong_options_are_one_line(tiny, tmp_path, options, message):
    with pytest.raises(BadValue, match=message):
        table_of(tiny[:2], tmp_path, **options)


def test_what_does_not_fit_is_refused_before_anything_is_trained(tiny, tmp_path):
    small_run = {"levels": 1, "steps": 2, "tolerance": 1.0, "out": tmp_path / "runs"}
    narrow, wide = search("mlp", DATA, **small_run), search("mlp", "digits", **small_run)
    elsewhere = search(tiny_model, DATA, seed=10, **small_run)
    for runs, message in (
        ([wide, tiny[0]], "their model differs .mlp, tiny_model"),
        ([wide, narrow], r"of the tensors, 'fc1.weight' is \[\d+, 64\] in '.*' and \[\d+, 6\] in"),
        ([tiny[0], elsewhere], r"have none in common .\[0, 1\] and \[10\]"),
        ([tiny[0]], "takes two or more runs, not 1"),
        ([tiny[0], tiny[0]], "differ in no setting"),
    ):
        with pytest.raises(BadValue, match=message):
            transfer([each.run for each in runs], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
