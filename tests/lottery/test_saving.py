"""Whoever saves a ticket where others save, read or die: what has the final name is one ticket, whole."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lottery import Ticket
from lottery.runs import ticket
from lottery.runs.ticket_directory import open_ticket
from pruning.disk import directories
from pruning.errors import BadValue, StorageError
from pruning.mask import Mask

RECORD = {
    "kind": "lottery-ticket",
    "level": 1,
    "seed": 0,
    "density": 0.5,
    "sparsity": 0.5,
    "kept": 8,
    "prunable": 16,
    "layers": {"w": 0.5},
    "validation": 0.9,
    "test": None,
    "metric": {"name": "accuracy"},
}

# JAX, where another test loaded it, warns of every fork; the children here touch files only.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")


def a_ticket(number):
    """Ticket `number`: recognizable in every file; every other one has no trained weights."""
    weights = {"w": np.full((4, 4), float(number), np.float32)}
    mask = Mask({"w": np.arange(16).reshape(4, 4) % 2}, {"number": number})
    return Ticket(mask, weights, weights if number % 2 else None, {**RECORD, "level": number})


def number_of(ticket):
    """Return which ticket this is, if all of its files are of one."""
    found = {ticket.info["level"], int(ticket.params["w"][0, 0]), ticket.mask.metadata["number"]}
    assert (ticket.trained_params is not None) == bool(ticket.info["level"] % 2)
    (number,) = found
    return number


def save_again_and_again(number, target, until):
    while time.monotonic() < until:
        a_ticket(number).save(target)


@pytest.fixture(params=["exchange", "step aside"])
def file_system(request, monkeypatch):
    """One that can exchange two names in one step, and one that cannot."""
    if request.param == "step aside":
        monkeypatch.setattr(directories, "exchange_names", lambda one, other: False)
    return request.param


def test_of_several_processes_the_last_one_wins_and_every_read_is_whole(tmp_path, file_system):
    target, until = tmp_path / "ticket", time.monotonic() + 1.5
    a_ticket(1).save(target)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=save_again_and_again, args=(n, target, until)) for n in (1, 2, 3)]
    for writer in writers:
        writer.start()
    seen = set()
    while time.monotonic() < until:
        # Without an exchange there is a moment without a ticket; a mixture there never is.
        if file_system == "exchange" or target.exists():
            try:
                seen.add(number_of(Ticket.load(target)))
            except Exception:
                if file_system == "exchange":
                    raise
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert number_of(Ticket.load(target)) in (1, 2, 3) and seen <= {1, 2, 3} and len(seen) > 1
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


def test_a_ticket_in_the_place_of_another_leaves_nothing_of_it(tmp_path, file_system):
    a_ticket(1).save(tmp_path / "ticket")
    a_ticket(2).save(tmp_path / "ticket")
    assert sorted(os.listdir(tmp_path / "ticket")) == [
        "README.md",
        "config.json",
        "mask.safetensors",
        "model.safetensors",
    ]
    assert number_of(Ticket.load(tmp_path / "ticket")) == 2


@pytest.mark.parametrize("moment", ["listed", "copied"])
def test_a_ticket_that_another_process_moves_away_meanwhile_is_no_error(tmp_path, monkeypatch, moment):
    """Where names cannot be exchanged, there is no ticket for a moment: while a save looks at what it replaces."""
    a_ticket(1).save(tmp_path / "ticket")

    def elsewhere_first(function):
        def call(*args):
            if (tmp_path / "ticket").exists():
                (tmp_path / "ticket").rename(tmp_path / "elsewhere")
            return function(*args)

        return call

    if moment == "listed":
        monkeypatch.setattr(ticket, "foreign_names", elsewhere_first(ticket.foreign_names))
    else:
        monkeypatch.setattr(ticket.shutil, "copymode", elsewhere_first(ticket.shutil.copymode))
    a_ticket(2).save(tmp_path / "ticket")
    assert number_of(Ticket.load(tmp_path / "ticket")) == 2


def test_what_a_killed_process_left_goes_with_the_next_save_and_a_living_one_keeps_its_own(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
from pruning.disk.directories import replaced_directory
with replaced_directory(Path({str(tmp_path / "ticket")!r})) as folder:
    (folder / "half").touch()
    print(folder, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        folders = [Path((process.stdout or sys.stdin).readline().strip()) for process in started]
        assert len(set(folders)) == 2 and all((folder / "half").exists() for folder in folders)
        started[0].kill()
        started[0].wait()
        a_ticket(1).save(tmp_path / "ticket")
        assert not folders[0].exists() and (folders[1] / "half").exists()
    finally:
        for process in started:
            process.kill()
            process.communicate()
    a_ticket(2).save(tmp_path / "ticket")
    assert os.listdir(tmp_path) == ["ticket"]


def test_a_save_that_fails_leaves_the_old_ticket(tmp_path, monkeypatch):
    a_ticket(1).save(tmp_path / "ticket")

    def refuse(folder, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lottery.runs.ticket.seal_ticket", refuse)
    with pytest.raises(StorageError, match="No space left"):
        a_ticket(2).save(tmp_path / "ticket")
    assert number_of(Ticket.load(tmp_path / "ticket")) == 1 and os.listdir(tmp_path) == ["ticket"]


@pytest.mark.parametrize("foreign", ["notes.txt", ".git/config", "model.py"])
def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path, foreign):
    path = tmp_path / "ticket" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(BadValue, match="holds .*, which saving a ticket there would lose"):
        a_ticket(1).save(tmp_path / "ticket")
    path.unlink()
    if path.parent.name == ".git":
        path.parent.rmdir()
    a_ticket(1).save(tmp_path / "ticket")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(BadValue, match=f"holds {foreign.split('/')[0]}"):
        a_ticket(2).save(tmp_path / "ticket")
    assert path.read_text() == "mine" and number_of(Ticket.load(tmp_path / "ticket")) == 1


def test_a_model_of_somebody_else_is_not_a_ticket(tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadValue, match="holds no ticket"):
        a_ticket(1).save(tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "{}"


def test_places_that_no_ticket_takes(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadValue, match="is a file"):
        a_ticket(1).save(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    for here in (".", "", tmp_path):
        with pytest.raises(BadValue, match="is the current folder"):
            a_ticket(1).save(here)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/environment.json").write_text("{}")
    level = a_ticket(1).save(tmp_path / "run/seed-0/level-01")
    with pytest.raises(BadValue, match="a level of a run, which is written once"):
        level.save(level.path or "")


def test_a_link_stays_a_link(tmp_path):
    a_ticket(1).save(tmp_path / "v1")
    (tmp_path / "newest").symlink_to("v1")
    a_ticket(2).save(tmp_path / "newest")
    assert (tmp_path / "newest").is_symlink() and number_of(Ticket.load(tmp_path / "v1")) == 2


def test_the_permissions_of_the_folder_stay(tmp_path):
    a_ticket(1).save(tmp_path / "ticket")
    (tmp_path / "ticket").chmod(0o750)
    a_ticket(2).save(tmp_path / "ticket")
    assert (tmp_path / "ticket").stat().st_mode & 0o777 == 0o750


def test_everything_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The order of synchronizing and renaming: files, their folder, the new name, the folder that holds it."""
    happened = []
    synchronized, exchanged = directories.synchronize, directories.exchange_names
    monkeypatch.setattr(directories, "synchronize", lambda path: (happened.append(Path(path).name), synchronized(path)))
    monkeypatch.setattr(directories, "exchange_names", lambda a, b: (happened.append("named"), exchanged(a, b))[1])
    a_ticket(1).save(tmp_path / "ticket")
    happened.clear()
    a_ticket(2).save(tmp_path / "ticket")
    *before, named, after = happened
    assert (named, after) == ("named", tmp_path.name)
    assert {"config.json", "model.safetensors", "mask.safetensors"} <= set(before)
    assert before[-1].startswith(".ticket.") and before[-1].endswith(".tmp")


def test_a_ticket_without_its_facts_still_has_a_card(tmp_path):
    saved = a_ticket(1).save(tmp_path / "ticket")
    assert "density 0.5" in (tmp_path / "ticket/README.md").read_text()
    assert open_ticket(saved.path or Path()).record["level"] == 1
    assert dataclasses.replace(saved, path=None) is not None
