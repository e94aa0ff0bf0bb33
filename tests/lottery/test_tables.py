"""Tables for people: as wide as the terminal and in its colours; elsewhere plain, whatever the surroundings are."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from pathlib import Path

import pytest

from lottery import Data, find_ticket
from lottery.cli.app import run
from lottery.cli.terminal.showing import PeopleStream, colours, is_terminal, room_of
from lottery.results.columns import Report, Table, for_terminal, report
from lottery.results.comparison import comparison_table
from lottery.results.levels import Level
from lottery.results.reporting import table
from lottery.results.table import LevelTable, levels_of
from tests.lottery.helpers import blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
INTERVALS = Table(
    ("level", "density", "magnitude", "random"),
    tuple((str(n), f"{100 / 2**n:.2f}%", "98.06 [96.04, 99.05]", "97.50 [95.32, 98.68]") for n in range(3)),
    keys=2,
)


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    options = {"levels": 3, "steps": 30, "tolerance": 0.2, "replicates": 2, "quiet": True}
    found = find_ticket(tiny_model, DATA, out=tmp_path_factory.mktemp("runs"), **options).search
    assert found is not None
    return found


def levels(search, prunable: int) -> list[Level]:
    """The levels of a search as if there were so many weights."""
    return [
        Level(
            level.level,
            tuple(
                dataclasses.replace(r, prunable=prunable, kept=round(prunable * 0.8**level.level))
                for r in level.replicates
            ),
        )
        for level in search.levels
    ]


def shown(monkeypatch, words, stream, **variables: str) -> str:
    """What a command prints on a stream."""
    monkeypatch.setattr(sys, "stdout", stream)
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    assert run(words) == 0
    return stream.getvalue()


def cells(text: str) -> list[list[str]]:
    """The cells of the rows of a table of levels."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if re.match(r" *(\* *)?\d+ ", line)]


@pytest.mark.parametrize("prunable", [6_464, 266_200, 25_557_032, 1_300_000_000])
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "mean squared error"])
def test_eighty_columns_hold_the_table_of_levels(search, prunable, metric):
    found = levels(search, prunable)
    one = LevelTable(metric, True, 360, prunable)
    lines = for_terminal(one.whole(found, None), 80, False).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.strip()[0].isdigit()]
    assert [row.split()[:3] for row in rows] == [
        [str(n), f"{100 * level.density:.2f}%", f"{level.kept:,}"] for n, level in enumerate(found)
    ]
    head = " ".join(lines[: len(lines) - len(rows)])
    assert all(word in head for word in ("validation", "test", *re.split("[ _]", metric)))


def test_the_plain_table_of_a_small_network_fits_too_and_names_the_metric(search):
    lines = str(LevelTable("accuracy", True, 360, 266_200).whole(levels(search, 266_200), None)).splitlines()
    assert max(map(len, lines)) <= 80
    assert re.split(r"\s{2,}", lines[0].strip()) == [
        *("level", "density", "kept", "validation", "test accuracy %", "95 % interval", "vs dense")
    ]


@pytest.mark.parametrize("room", [None, 80, 76, 60, 40])
def test_rows_that_are_printed_as_levels_end_stand_as_in_the_whole_table(search, room):
    def drawn(part):
        return str(part) if room is None else for_terminal(part, room, False)

    one = levels_of(search)
    parts = [one.head(), *(one.row(level, search.levels[0]) for level in search.levels)]
    assert "\n".join(map(drawn, parts)) == drawn(one.whole(search.levels, None))


def test_the_winning_row_is_marked(search):
    winner = search.winner.level
    lines = str(levels_of(search).whole(search.levels, winner)).splitlines()
    assert [line.split()[:2] for line in lines if "*" in line] == [["*", str(winner)]]
    coloured = for_terminal(levels_of(search).whole(search.levels, winner), 80, True).splitlines()
    assert [line for line in coloured[1:] if "\x1b" in line] == [coloured[1 + winner]]
    again = str(levels_of(search).winning(search.levels[winner], search.levels[0]))
    assert again == lines[1 + winner]


def test_a_replicate_that_diverged_is_said_below_its_row(search):
    level = search.levels[1]
    bad = dataclasses.replace(level.replicates[1], diverged="the loss is not finite")
    level = Level(1, (level.replicates[0], bad))
    row, note = str(levels_of(search).row(level, search.levels[0])).splitlines()
    assert row.split()[0] == "1" and note.strip() == "diverged (seed 1: the loss is not finite)"
    assert "level 1:" in str(levels_of(search).whole([search.levels[0], level], None))


def test_a_pipe_gets_the_same_whatever_the_surroundings(search, monkeypatch):
    words = ["show", str(search.run)]
    plain = shown(monkeypatch, words, io.StringIO())
    assert plain == shown(monkeypatch, words, io.StringIO(), COLUMNS="30", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b" not in plain and all(line == line.rstrip() for line in plain.splitlines())


def test_a_terminal_gets_the_same_cells_in_its_width_and_colours(search, monkeypatch):
    words = ["show", str(search.run)]
    plain = shown(monkeypatch, words, io.StringIO())
    wide = shown(monkeypatch, words, Terminal(), COLUMNS="200")
    assert "\x1b[1m" in wide and "\x1b[1;32m" in wide and ESCAPE.sub("", wide) == plain
    narrow = shown(monkeypatch, words, Terminal(), COLUMNS="72")
    assert cells(ESCAPE.sub("", narrow)) == cells(plain) and len(cells(plain)) == 4 and narrow != wide


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_no_codes(search, monkeypatch, variables):
    assert "\x1b" not in shown(monkeypatch, ["show", str(search.run)], Terminal(), **variables)


def test_a_search_prints_its_rows_and_then_the_winning_one_again(tmp_path, monkeypatch):
    words = ["prune", "--levels", "2", "--steps", "30", "--set", "tolerance=1.0", "--out", str(tmp_path)]
    lines = shown(monkeypatch, words, io.StringIO()).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["level", "0", "1", "2", "*"]
    assert lines[5].split()[1:] == lines[4].split()
    again = shown(monkeypatch, words, Terminal(), COLUMNS="80")
    assert ESCAPE.sub("", again).splitlines()[1:6] == lines[1:6] and "\x1b[1;32m  * 2" in again


def test_a_stored_name_steers_no_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    PeopleStream(stream).show(report(Table(("name\x1b[2J",), (("fc\x1b[31m\n",),)), "gone\x1b[0m"))
    assert ESCAPE.sub("", stream.getvalue()).count("\x1b") == 0 and "\\x1b[31m" in stream.getvalue()
    assert stream.getvalue().endswith("gone\\x1b[0m\n")


def test_cells_beside_each_other_are_apart(search):
    other = dataclasses.replace(search, config={**search.config, "criterion": "random"})
    for room in (80, 60, 50):
        rows = for_terminal(comparison_table([search, other]), room, False).splitlines()
        assert any("]  " in row for row in rows) and not any(re.search(r"\] ?\d", row) for row in rows)
    rows = for_terminal(INTERVALS, 58, False).splitlines()[1:]
    assert all(len(re.split(r"\s{2,}", row.strip())) == 4 for row in rows)


def test_what_is_too_wide_gives_way_in_order():
    loose = table(["level", "mean of all"], [["0", "1.00"]], least=(8, 20))
    assert for_terminal(loose, 30, False).splitlines()[1] == f"{'0':>8}  {'1.00':>20}"
    assert for_terminal(loose, 18, False).splitlines() == ["level  mean of all", "    0         1.00"]
    assert for_terminal(loose, 14, False).splitlines() == ["       mean of", "level      all", "    0     1.00"]
    # an interval stays together, and so does a number with its unit
    broken = for_terminal(table(["a"], [["+1.00 pp [+0.50, +1.50]"]]), 16, False)
    assert broken.splitlines()[1:] == ["        +1.00 pp", "[+0.50, +1.50]".rjust(16)]


def test_what_does_not_fit_even_so_is_shown_in_parts_with_the_columns_that_name_a_row():
    parts = for_terminal(INTERVALS, 36, False).splitlines()
    assert [line.split() for line in parts[::4]] == [["level", "density", name] for name in ("magnitude", "random")]
    assert all(line.split()[1] == "100.00%" for line in parts[1::4])
    many = table(["level", *map(str, range(40))], [["0", *["1.00"] * 40]])
    lines = for_terminal(many, 80, False).splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.count("1.00") for line in lines) == 40
    assert all(line.split()[0] == "0" for line in lines[1::2])


def test_the_readme_shows_the_table_as_it_is():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"\n{LevelTable('accuracy', True, 360, 6_464).head()}\n    0  100.00%  6,464 " in text


def test_wide_characters_take_their_room():
    lines = str(table(["名前", "x"], [["a", "1"], ["重み", "2"]], left=[0])).splitlines()
    assert lines == ["名前  x", "a     1", "重み  2"]


def test_a_table_without_rows_is_its_header():
    assert str(Table(("level", "x"))) == "level  x"
    assert str(Report(()) + "text") == "text"


def test_a_terminal_is_known_by_what_it_says():
    assert is_terminal(Terminal()) and not is_terminal(io.StringIO()) and not is_terminal(None)
    assert colours({"TERM": "xterm", "NO_COLOR": ""}) or sys.platform == "win32"


@pytest.mark.parametrize(("said", "room"), [("100", 100), ("20", 40), ("0", None), ("-3", None), ("wide", None)])
def test_the_room_is_what_columns_says(monkeypatch, said, room):
    monkeypatch.delenv("COLUMNS", raising=False)
    own = room_of(Terminal())
    monkeypatch.setenv("COLUMNS", said)
    assert room_of(Terminal()) == (room or own)


def test_every_command_that_shows_a_table_fits_it(search, monkeypatch, tmp_path):
    """Nothing but texts (notes and paths) is wider than the terminal."""
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef make(seed=0):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    small = ["--levels", "1", "--steps", "20", "--set", "tolerance=1.0", "--quiet"]
    made = []
    for criterion in ("magnitude", "random"):
        stream = io.StringIO()
        shown(monkeypatch, ["prune", "--model", "nets:make", "--criterion", criterion, *small], stream)
        made.append(str(Path(stream.getvalue().strip()).parents[1]))
    ours = ["--model", "nets:make"]
    ends = [f"{made[0]}/seed-0/level-0{level}" for level in (0, 1)]
    for words in (
        ["show", *made],
        ["ablate", made[0], "--kind", "shuffle-mask", *ours],
        ["connect", *ends, "--points", "3", *ours],
        ["layers", "nets:make"],
        ["show", made[0], "--analysis", "layer-density"],
    ):
        lines = shown(monkeypatch, words, Terminal(), COLUMNS="60").splitlines()
        bold = [ESCAPE.sub("", line) for line in lines if line.startswith("\x1b[1m")]
        assert bold and max(map(len, bold)) <= 60, words
