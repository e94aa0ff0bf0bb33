"""Records and histories of any inner types: one clear error with the file's name, or they work; never a crash."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lottery import Data, Ticket, find_ticket
from lottery.cli.app import run as command
from lottery.cli.show import _show_one
from lottery.results.comparison import comparison_text
from lottery.results.levels import Search
from lottery.results.summary import as_json
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_search
from lottery.runs.ticket_directory import sealed
from lottery.studies.transfer.again import train_ticket
from pruning.disk.files import read_json, sha256
from pruning.errors import FileFormatError, LotteryError
from pruning.mask import Mask
from tests.lottery.helpers import blobs, tiny_model

DATA = Data(train=blobs(60), validation=blobs(30, seed=1), test=blobs(30, seed=2))
DEEP = json.loads("[" * 200 + "]" * 200)
# 1e400 is read as infinity, and a lone surrogate is half a character that nothing can print.
HOSTILE = [None, True, -1, 2**70, float("inf"), 0.5, "x", "../../x", "\ud800", "\x1b[31m", [], [1], {}, {"x": 1}, DEEP]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    ticket = find_ticket(tiny_model, DATA, levels=1, steps=4, tolerance=1.0, replicates=2, out=out, quiet=True)
    assert ticket.search is not None
    return ticket.search.run


@pytest.fixture
def run(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def places(value, path=()):
    """Every place in a JSON value, from the outside in; of a list its first item."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def mutations(value):
    """The value with every entry replaced by each hostile one, and without every entry."""
    for path in places(value):
        for hostile in HOSTILE:
            changed = copy.deepcopy(value)
            if not path:
                yield hostile
                continue
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = hostile
            yield changed
        if path and isinstance(path[-1], str):
            changed = copy.deepcopy(value)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            del parent[path[-1]]
            yield changed


def write(path, value):
    """Write JSON as a stranger may: infinities and half characters too."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_record(folder, record, hashes):
    """Write a record with hashes that are right: what is wrong with it is its types."""
    write(folder / "config.json", sealed_as_it_is(record, hashes) if isinstance(record, dict) else record)


def sealed_as_it_is(record, hashes):
    found = sealed(record, hashes)
    return found if finite_only(record) else {**record, "files": hashes, "record_sha256": found["record_sha256"]}


def finite_only(value):
    return "Infinity" not in json.dumps(value)


def survives(call):
    """Make a call; only an error that this toolkit raises on purpose may come, in one line."""
    try:
        return call()
    except LotteryError as error:
        return str(error).splitlines()[:1]


def look_at(run, capsys):
    """Do what people do with a run and a ticket, and see that nobody is surprised."""
    survives(lambda: str(Ticket.load(run / "seed-0" / "level-01")))
    search = survives(lambda: read_search(run))
    if isinstance(search, Search):
        json.dumps(as_json(search))
        survives(lambda: str(comparison_text([search, search])))
        _show_one(run, plot=False, as_json=False)
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        captured.out.encode()


@pytest.mark.parametrize("level", ["level-00", "level-01"])
def test_a_record_of_any_types(run, level, capsys):
    folder = run / "seed-0" / level
    record = read_json(folder / "config.json")
    hashes = record.pop("files")
    record.pop("record_sha256")
    record["transfer"], record["dense"] = {"identity": "x"}, {"validation": 0.5, "test": None}
    record["given"] = {"model": "mlp", "data": "digits"}
    record["config"] = {
        key: record["config"][key] for key in ("model", "seed", "split_seed", "tolerance", "measure_at")
    }
    for changed in mutations(record):
        write_record(folder, changed, hashes)
        look_at(run, capsys)


def test_a_history_of_any_types(run, capsys):
    folder = run / "seed-0" / "level-01"
    record, rows = read_json(folder / "config.json"), read_json(folder / "history.json")
    for changed in mutations(rows):
        write(folder / "history.json", changed)
        hashes = {**record["files"], "history.json": sha256((folder / "history.json").read_bytes())}
        write_record(folder, record, hashes)
        look_at(run, capsys)


@pytest.mark.parametrize("name", ["environment.json", "summary.json", "config.json", "replicates.json"])
def test_the_files_of_a_run_of_any_types(run, name, capsys):
    whole = read_json(run / name)
    if name == "environment.json":
        whole = {key: whole[key] for key in ("device", "date")}
    if name == "summary.json":
        whole = {key: whole[key] for key in ("stopped", "test_examples", "levels")} | {"levels": []}
    if name == "config.json":
        whole = {key: value for key, value in whole.items() if key in ("seed", "data_fingerprint", "lr")}
    for changed in mutations(whole):
        write(run / name, changed)
        look_at(run, capsys)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"level": "1"}, "level must be a whole number of 0 or more, not '1'"),
        ({"layers": []}, "layers must be an object, not []"),
        ({"layers": {"w": 2}}, "layers.'w' must be a number from 0 to 1, not 2"),
        ({"metric": None}, "metric must be an object, not None"),
        (
            {"metric": {"name": "accuracy", "higher_is_better": 1, "is_fraction": True}},
            "metric.higher_is_better must be",
        ),
        ({"early_stop": 3}, "early_stop must be an object, not 3"),
        ({"early_stop": {"step": 1, "validation": 0.5, "test": 0.5, "x": 1}}, "has an entry 'x' that nobody knows"),
        ({"validation": "0.9"}, "validation must be a finite number, not '0.9'"),
        ({"kept": 10**6}, "kept is 1,000,000, more than the 72 prunable"),
        ({"prunable": 0}, "prunable must be a whole number of 1 or more, not 0"),
        ({"config": {"split_seed": "x"}}, "config.split_seed must be a whole number"),
        ({"format": 2}, "format must be a whole number from 1 to 1, not 2"),
    ],
)
def test_the_message_names_file_and_entry(run, entries, message):
    folder = run / "seed-0" / "level-01"
    record = read_json(folder / "config.json")
    write_record(folder, {**record, **entries}, record["files"])
    with pytest.raises(FileFormatError, match=r"seed-0/level-01/config\.json: .*" + re.escape(message)):
        read_search(run)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "it must be a list, not {}"),
        ([{"step": 1}], "item 0 lacks train_loss"),
        ([[]], "item 0 must be an object"),
    ],
)
def test_the_message_names_the_row_of_a_history(run, rows, message):
    folder = run / "seed-0" / "level-01"
    record = read_json(folder / "config.json")
    write(folder / "history.json", rows)
    write_record(folder, record, {**record["files"], "history.json": sha256((folder / "history.json").read_bytes())})
    with pytest.raises(FileFormatError, match=r"history\.json: .*" + re.escape(message)):
        read_search(run)


def test_replicates_that_prune_other_tensors_are_no_search(run):
    folder = run / "seed-1" / "level-01"
    record = read_json(folder / "config.json")
    write_record(folder, {**record, "layers": {"other": 0.5}}, record["files"])
    with pytest.raises(FileFormatError, match=r"config\.json: other prunable tensors than in"):
        read_search(run)


def test_settings_of_any_types_train_nothing_or_are_refused(run, tmp_path):
    ticket = Ticket.load(run / "seed-0" / "level-01")
    for key in ("optimizer", "trainer", "seed", "moves", "strategy", "batch_size", "augment"):
        for hostile in (None, True, -1, "x:y", "../x", [], {}, [[]]):
            info = {**ticket.info, "config": {**ticket.info["config"], key: hostile, "steps": 1}}
            changed = Ticket(ticket.mask, ticket.params, None, info)
            survives(lambda changed=changed: train_ticket(changed, tiny_model, DATA, out=tmp_path / "out"))


class TestMasks:
    @pytest.mark.parametrize(
        "header",
        [
            {"format": True},
            {"format": 1.0},
            {"format": 0},
            {"format": -1},
            {"format": 10**30},
            {"format": "1"},
            {"format": [1]},
            {"format": 1, "order": "w"},
            {"format": 1, "order": [1]},
            {"format": 1, "order": [["w"]]},
            {"format": 1, "order": [{}]},
            {"format": 1, "order": ["w", "w"]},
            {"format": 1, "order": ["v"]},
            {"format": 1, "level": float("nan")},
            {"format": 1, "level": DEEP},
            {"format": 1, "level": "\ud800"},
        ],
        ids=repr,
    )
    def test_a_hostile_header_is_an_error(self, tmp_path, header):
        path = tmp_path / "mask.safetensors"
        safetensors.numpy.save_file({"w": np.ones(2, bool)}, path, metadata={"lottery": json.dumps(header)})
        with pytest.raises(FileFormatError, match=r"mask\.safetensors: "):
            Mask.load(path)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "nan", "\0"])
    def test_a_header_that_is_no_json_to_speak_of(self, tmp_path, text):
        path = tmp_path / "mask.safetensors"
        safetensors.numpy.save_file({"w": np.ones(2, bool)}, path, metadata={"lottery": text})
        with pytest.raises(FileFormatError, match="is not JSON"):
            Mask.load(path)

    def test_a_mask_of_nothing(self, tmp_path):
        path = tmp_path / "mask.safetensors"
        safetensors.numpy.save_file({"w": np.ones((0, 3), bool)}, path, metadata={"lottery": '{"format": 1}'})
        with pytest.raises(FileFormatError, match="whose tensors are all empty"):
            Mask.load(path)

    def test_metadata_that_is_not_finite_is_written_as_nothing(self, tmp_path):
        Mask({"w": [1, 0]}, {"score": float("nan")}).save(tmp_path / "mask.safetensors")
        assert Mask.load(tmp_path / "mask.safetensors").metadata["score"] is None


@pytest.mark.parametrize("name", ["config.json", "history.json", "model.safetensors", "mask.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "sparse"])
def test_what_is_no_file_in_the_place_of_one_is_an_error_at_once(run, name, kind, capsys):
    path = run / "seed-0" / "level-01" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(2**42)
    with pytest.raises(FileFormatError, match=f"{re.escape(name)}|not a ticket directory"):
        (RunDirectory(run).read_history(0, 1) if name == "history.json" else Ticket.load(path.parent))
    code = command(["show", str(run)])
    captured = capsys.readouterr()
    assert "--debug shows where" not in captured.err
    assert code == 2 or name.endswith("safetensors")


def test_names_of_folders_that_are_no_seeds(run):
    for name in ("seed-00", "seed-٣", "seed-" + "9" * 200, "seed--1", "seed-x"):
        (run / name).mkdir()
    assert len(read_search(run).levels[0].replicates) == 2
    assert isinstance(Path(run), Path)
