"""What is told of a search, in text and as JSON: the numbers of its levels, and of the records that lie on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lottery import Data, Ticket, find_ticket
from lottery.results.levels import replicated
from lottery.results.summary import level_json
from lottery.results.table import conclusion, layer_table, ticket_text, transfer_text
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import run_seconds
from lottery.runs.records import check_level, read_environment, read_run_config
from pruning.disk.files import read_json
from pruning.errors import FileFormatError
from tests.lottery.helpers import blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    options = {"levels": 2, "steps": 30, "tolerance": 1.0, "replicates": 2}
    found = find_ticket(tiny_model, DATA, out=tmp_path_factory.mktemp("runs"), **options).search
    assert found is not None
    return found


def test_a_level_as_json_has_the_numbers_of_its_replicates(search):
    level = search.levels[1]
    shown = json.loads(json.dumps(level_json(level, search)))
    assert (shown["level"], shown["kept"], shown["test"]) == (1, level.kept, level.test)
    assert shown["density"] + shown["sparsity"] == pytest.approx(1)
    assert shown["test_interval"][0] <= shown["test"] <= shown["test_interval"][1]
    assert [(one["seed"], one["test"]) for one in shown["replicates"]] == [(r.seed, r.test) for r in level.replicates]


def test_the_conclusion_names_the_winner_or_why_there_is_none(search):
    text = conclusion(search)
    assert f"Winning ticket: level {search.winner.level}, " in text
    assert f"Ticket: {search.winning_replicate.path}" in text
    assert "Student's t over 2 replicates" in text and "stopped early" not in text
    none = conclusion(replace(search, winner=None, reason="all are worse", stopped="nothing is left"))
    assert "No winning ticket: all are worse (tolerance 100.00 pp" in none
    assert none.endswith("The search stopped early: nothing is left.")


def test_a_table_of_layers_has_a_line_for_each_tensor(search):
    layers = search.levels[2].replicates[0].layers
    header, *rows = [line.split() for line in str(layer_table(search.levels[2].replicates[0])).splitlines()]
    assert header == ["layer", "density"]
    assert rows == [[name, f"{100 * density:.2f}%"] for name, density in layers.items()]


def test_a_ticket_in_a_few_lines(search):
    ticket = Ticket.load(search.levels[1].replicates[0].path)
    text = ticket_text(ticket.info, ticket.mask, search, None, trained=False, hashed=True)
    assert text.startswith(f"Ticket: {100 * ticket.mask.density:.2f} % of {ticket.mask.total:,} weights")
    assert f"test accuracy: {100 * ticket.info['test']:.2f}, dense {100 * ticket.info['dense']['test']:.2f}" in text
    assert "searched: 3 levels, 2 replicate(s)" in text and text.endswith("stored in: memory only")
    poor = ticket_text(ticket.info, ticket.mask, None, search.run, trained=True, hashed=False)
    assert "trained weights: of " in poor and f"stored in: {search.run}" in poor and "without hashes" in poor


def test_a_ticket_that_was_trained_again_is_told_of_beside_where_it_was_found(search):
    record = read_json(search.levels[1].replicates[0].path / "config.json")
    text = transfer_text(search, record)
    assert f"Trained with gd on data: 100.00 % of the weights, test accuracy {100 * search.levels[0].test:.2f}" in text
    assert f"test accuracy {100 * record['test']:.2f}." in text
    assert [line for line in text.splitlines() if line.startswith("Ticket: ")] == [
        f"Ticket: {replicate.path}" for replicate in search.levels[0].replicates
    ]


def test_a_configuration_has_the_replicates_that_there_are(search):
    found = replicated({"seed": 7, "replicates": 9, "lr": 0.1}, search.levels[0])
    assert found == {"seed": 0, "replicates": 2, "lr": 0.1}


def test_the_seconds_of_a_run_are_those_of_its_records(search):
    run = RunDirectory(search.run)
    records = [run.read_record(seed, level) for seed in (0, 1) for level in (0, 1)]
    assert run_seconds(run, search.levels[:2]) == pytest.approx(sum(record["seconds"] for record in records))


def test_a_record_that_lies_in_anothers_place_is_refused(search):
    path = search.levels[1].replicates[0].path / "config.json"
    record = read_json(path)
    assert check_level(path, record, 0, 1) == record
    with pytest.raises(FileFormatError, match="of seed 0, level 1, which is not where it lies"):
        check_level(path, record, 1, 1)
    with pytest.raises(FileFormatError, match="layers names no tensor"):
        check_level(path, {**record, "layers": {}}, 0, 1)


@pytest.mark.parametrize(("read", "name"), [(read_environment, "environment"), (read_run_config, "config")])
def test_files_of_a_run_are_read_as_they_are_and_refused_where_they_are_none(search, tmp_path, read, name):
    assert read(search.run) == read_json(search.run / f"{name}.json")
    (tmp_path / f"{name}.json").write_text("[]")
    with pytest.raises(FileFormatError, match=name):
        read(tmp_path)
