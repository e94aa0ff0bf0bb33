"""What a stored file says is shown, and steers no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery import Data, Ticket, find_ticket
from lottery.cli.app import run as command
from lottery.cli.terminal.output import json_text
from lottery.results.card import card
from lottery.results.figure import save_figure, words
from pruning.disk.files import read_json, write_json
from pruning.disk.plain import plain, plain_lines
from tests.lottery.helpers import blobs, rewrite_record, tiny_model

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nlottery: done\x7f"
DATA = Data(train=blobs(60), validation=blobs(30, seed=1), test=blobs(30, seed=2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs whose records say control characters wherever they say a text."""
    out = tmp_path_factory.mktemp("runs")
    found = []
    for batch_size in (8, 16):
        settings = {"levels": 1, "steps": 4, "batch_size": batch_size, "tolerance": 1.0}
        ticket = find_ticket(tiny_model, DATA, out=out, quiet=True, **settings)
        assert ticket.search is not None
        run = ticket.search.run
        for folder in run.glob("seed-0/level-*"):
            record = read_json(folder / "config.json")
            texts = {key: value for key, value in record.items() if isinstance(value, str) and key != "kind"}
            said: dict[str, Any] = {key: f"{value}{ESCAPES}" for key, value in texts.items()}
            said["metric"] = {**record["metric"], "name": f"accuracy $\\frac{{{ESCAPES}"}
            said["layers"] = {f"{name}{ESCAPES}": density for name, density in record["layers"].items()}
            said["config"] = {**record["config"], "model": ESCAPES, "optimizer": f"{batch_size}{ESCAPES}"}
            rewrite_record(folder, **{key: value for key, value in said.items() if key != "record_sha256"})
        for name, entry in (("environment.json", "device"), ("summary.json", "stopped")):
            write_json(run / name, {**read_json(run / name), entry: ESCAPES})
        found.append(run)
    return found


def assert_steers_nothing(*texts):
    for text in texts:
        assert not [c for c in text if not c.isprintable() and c != "\n"], text
        assert "\nlottery: done" not in text


def test_a_shown_run_and_a_comparison_steer_no_terminal(runs, capsys, tmp_path):
    for command_line in (
        ["show", runs[0]],
        ["show", runs[0], "--plot"],
        ["show", *runs, "--figure", tmp_path / "both.png"],
        ["show", runs[0], "--analysis", "layer-density"],
    ):
        assert command(list(map(str, command_line))) == 0
        captured = capsys.readouterr()
        assert_steers_nothing(captured.out, captured.err)
        assert "owned" in captured.out or "--analysis" in command_line  # shown it is


def test_json_says_the_same_in_escapes_of_json(runs, capsys):
    assert command(["show", str(runs[0]), "--json"]) == 0
    captured = capsys.readouterr()
    assert_steers_nothing(captured.out, captured.err)
    assert json.loads(captured.out)["stopped"] == ESCAPES
    assert json_text({"plain": "naïve"}) == '{\n  "plain": "naïve"\n}'


def test_a_printed_ticket_and_its_card_steer_no_terminal(runs):
    ticket = Ticket.load(runs[0] / "seed-0" / "level-01")
    assert "owned" in str(ticket)
    assert_steers_nothing(str(ticket), repr(ticket), card(ticket.info))


def test_an_error_that_quotes_a_file_steers_no_terminal(runs, capsys):
    folder = runs[1] / "seed-0" / "level-01"
    rewrite_record(folder, validation=ESCAPES)
    assert command(["show", str(runs[1])]) == 2
    assert_steers_nothing(capsys.readouterr().err)
    assert command(["show", f"no{ESCAPES}where"]) == 2
    assert_steers_nothing(capsys.readouterr().err)


def test_a_stored_name_in_a_figure_is_no_formula(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 10], [1, 2], label=r"$\broken{")
    axes.set(title=r"$\frac{", xlabel="a\x1bb", xscale="log")
    axes.set_yticks([1, 2], [words(r"$\x"), words("$$")])
    axes.legend()
    figure.suptitle(r"$\y")
    assert save_figure(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert axes.get_xlabel() == r"a\x1bb"


@pytest.mark.parametrize("text", ["fc1.weight", "naïve Bäume 木 🌳", "±5 %", ""])
def test_ordinary_text_stays_as_it_is(text):
    assert plain(text) == plain_lines(text) == text


def test_half_a_character_can_be_printed():
    assert plain("\ud800").encode() == rb"\ud800"
    assert plain(Path("a\nb")) == r"a\nb" and plain_lines("a\nb\tc") == "a\nb\\tc"
    assert plain(np.float32(1)) == "1.0"
