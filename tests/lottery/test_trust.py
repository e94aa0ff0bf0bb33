"""A stored ticket or run is data: nothing that it names is imported or called unless the user says so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lottery import Ticket, find_ticket
from lottery.bench.tickets import sparse_reports
from lottery.cli.app import run
from lottery.cli.terminal.trusting import look_here
from lottery.exports.exporting import export
from lottery.settings.trust import check_stored, given_or_stored
from lottery.studies.ablation.running import ablate
from lottery.studies.analyses import study
from lottery.studies.connection.tickets import connect
from lottery.studies.instability.running import instability
from lottery.studies.transfer.again import train_ticket
from lottery.studies.transfer.table import transfer
from pruning.disk.files import read_json
from pruning.errors import BadValue, Untrusted
from tests.lottery.helpers import rewrite_record

PAYLOAD = """
open("RAN", "a").close()

def make(shape, outputs):
    from lottery.networks.models import MODELS
    return MODELS["mlp"].value(shape, outputs)

def score(trained, job):
    return {name: abs(trained.params[name]) for name in job.mask}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two honest runs that differ in one setting."""
    common = {"levels": 1, "steps": 4, "tolerance": 1.0, "out": tmp_path_factory.mktemp("runs"), "replicates": 2}
    return [find_ticket("mlp", "digits", batch_size=size, **common).search.run for size in (16, 32)]  # pyright: ignore


@pytest.fixture
def here(runs, tmp_path, monkeypatch):
    """The current folder: copies of the runs whose records name a module that lies beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "payload", raising=False)
    Path("payload.py").write_text(PAYLOAD)
    for name, source in zip("ab", runs, strict=True):
        shutil.copytree(source, name)
    yield tmp_path
    sys.modules.pop("payload", None)


def name_in_records(key, value):
    """Have every record of the two runs name a model, or a criterion."""
    for folder in (path.parent for path in Path().glob("*/seed-*/level-*/config.json")):
        record = read_json(folder / "config.json")
        if key == "criterion":
            rewrite_record(folder, config={**record["config"], "criterion": value})
        else:
            rewrite_record(folder, given={**record["given"], key: value})


TICKET, OTHER = "a/seed-0/level-01", "a/seed-1/level-01"
COMMANDS = {
    "export": ["export", TICKET, "--to", "csr", "--out", "csr"],
    "train": ["train", TICKET, "--quiet", "--steps", "2"],
    "bench": ["bench", "sparse", TICKET, "--batch-size", "1"],
    "connect": ["connect", TICKET, OTHER, "--points", "2"],
    "ablate": ["ablate", "a", "--kind", "random-mask", "--quiet"],
    "instability": ["instability", "a", "--copies", "2", "--points", "2", "--quiet"],
    "transfer": ["transfer", "a", "b", "--quiet"],
    "analysis": ["show", "a", "--analysis", "sharpness"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_model_that_only_a_record_names(command, here, capsys):
    name_in_records("model", "payload:make")
    assert run(COMMANDS[command]) == 2
    error = capsys.readouterr().err
    assert "names the model 'payload:make'; nothing that a stored file names is run" in error
    assert "name it again with --model (model=…), or say --trust (trust=True)" in error
    assert not Path("RAN").exists() and "payload" not in sys.modules and "" not in sys.path


@pytest.mark.parametrize("words", [["--trust"], ["--model", "payload:make"]])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_it_when_told_to(command, words, here):
    name_in_records("model", "payload:make")
    run([*COMMANDS[command], *words])  # where it is compared with what the search was made with, it is another model
    assert Path("RAN").exists()


def test_naming_it_again_gives_what_was_asked_for(here):
    name_in_records("model", "payload:make")
    assert run([*COMMANDS["export"], "--model", "payload:make"]) == 0
    assert Path("csr/load.py").exists()


def test_python_has_the_same_rule(here):
    name_in_records("model", "payload:make")
    ticket = Ticket.load(TICKET)
    assert str(ticket) and ticket.info["given"]["model"] == "payload:make"
    for call in (
        lambda: export(ticket, "csr", out="csr"),
        lambda: train_ticket(ticket),
        lambda: list(sparse_reports(ticket)),
        lambda: connect([TICKET, OTHER]),
        lambda: ablate("a", "random-mask"),
        lambda: instability("a"),
        lambda: transfer(["a", "b"]),
        lambda: study("a").view,
    ):
        with pytest.raises(Untrusted, match="nothing that a stored file names is run"):
            call()
    assert not Path("RAN").exists()
    sys.path.insert(0, "")
    assert export(ticket, "csr", out="csr", trust=True).difference == 0


def test_a_criterion_that_only_a_record_names_is_not_run_and_not_needed_elsewhere(here, capsys):
    name_in_records("criterion", "payload:score")
    assert run(COMMANDS["ablate"]) == 2
    assert "names the criterion 'payload:score'; nothing that a stored file" in capsys.readouterr().err
    assert not Path("RAN").exists()
    # These draw no mask.
    assert run(COMMANDS["instability"]) == run(COMMANDS["transfer"]) == run(COMMANDS["analysis"]) == 0
    assert not Path("RAN").exists()
    run([*COMMANDS["ablate"], "--criterion", "payload:score"])
    assert Path("RAN").exists()


def test_what_the_caller_of_find_ticket_named_need_not_be_named_again(here, monkeypatch):
    monkeypatch.syspath_prepend(str(here))
    ticket = find_ticket("payload:make", "digits", levels=1, steps=4, tolerance=1.0, out="runs", quiet=True)
    assert export(ticket, "csr", out="csr").difference == 0
    with pytest.raises(Untrusted):
        export(Ticket.load(ticket.path or ""), "csr", out="again")


def test_names_of_the_registries_and_data_are_no_code():
    for kind, name in (("model", "mlp"), ("data", "digits"), ("data", "gymnax:CartPole-v1"), ("data", "images/")):
        check_stored(kind, name, "ticket", trust=False)
    for kind, name in (("model", "gymnax:make"), ("data", "os:getcwd"), ("criterion", "os:getcwd")):
        with pytest.raises(Untrusted):
            check_stored(kind, name, "ticket", trust=False)
    with pytest.raises(BadValue, match="its model has no name; say which with model=… .--model."):
        given_or_stored("model", None, {}, "ticket", trust=True)


def test_the_current_folder_lends_its_modules_only_to_names_of_the_user(monkeypatch):
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    look_here("mlp", None)
    assert sys.path == ["elsewhere"]
    look_here("mine:model")
    assert sys.path == ["", "elsewhere"]
