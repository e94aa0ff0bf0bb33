"""Runs and files that an earlier version made (commit 345cfc6): they are found again, shown, and studied."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from lottery import Ticket
from lottery.cli.app import run

# The commands that made them, but for the folder. The file has `-` in the place of `_`, and a table.
COMMANDS = {
    "gd": "prune --config old.toml --scope layer --set guard=2",
    "es": (
        "prune --trainer es --generations 4 --population 4 --levels 1 --prune-rate 0.8 --set tolerance=1.0 "
        "--set sigma=0.1"
    ),
}
MEASURED = ("level", "density", "kept", "layers", "validation", "test", "test_interval")


@pytest.fixture(autouse=True)
def _workshop(tmp_path, monkeypatch):
    with zipfile.ZipFile(Path(__file__).with_name("old_runs.zip")) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)


def folder(trainer):
    (found,) = Path().glob(f"digits-mlp-{trainer}-magnitude-*")
    return found


@pytest.mark.parametrize("trainer", COMMANDS)
def test_the_command_that_made_a_run_finds_it_and_trains_nothing(trainer, capsys):
    before = {path: path.read_bytes() for path in folder(trainer).rglob("*.safetensors")}
    assert run([*COMMANDS[trainer].split(), "--out", ".", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "complete, a stored result" in err and "nothing was trained" in err
    assert Path(out.strip()).resolve().is_relative_to(folder(trainer).resolve())
    assert {path: path.read_bytes() for path in folder(trainer).rglob("*.safetensors")} == before


@pytest.mark.parametrize("trainer", COMMANDS)
def test_a_run_is_shown_and_its_ticket_opens(trainer, capsys):
    assert run(["show", str(folder(trainer)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stored = json.loads((folder(trainer) / "summary.json").read_text())
    for shown, level in zip(found["levels"], stored["levels"], strict=True):
        assert [shown[key] for key in MEASURED] == [level[key] for key in MEASURED]
    assert found["metric"] == stored["metric"]
    ticket = Ticket.load(folder(trainer) / "seed-0" / "level-01")
    assert ticket.mask.density == pytest.approx(0.2 if trainer == "es" else 0.21, abs=0.02)


def test_a_run_has_its_controls_trained_as_it_was(capsys):
    assert run(["ablate", str(folder("gd")), "--kind", "random-mask", "--json"]) == 0
    (level,) = json.loads(capsys.readouterr().out)["levels"]
    assert level["kind"] == "random-mask" and level["level"] == 1


def test_a_ticket_is_trained_again_with_the_settings_of_its_record(capsys):
    ticket = folder("gd") / "seed-0" / "level-01"
    assert run(["train", str(ticket), "--seed", "5", "--out", "again", "--json"]) == 0
    (made,) = Path("again").glob("digits-*")
    config = json.loads((made / "config.json").read_text())
    assert (config["optimizer"], config["lr"], config["momentum"], config["steps"]) == ("sgd", 0.1, 0.9, 20)
