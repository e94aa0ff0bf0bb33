"""Standard output holds results only, whoever prints; streams that are missing, closed or poor do no harm."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lottery import find_ticket
from lottery.cli.app import run
from lottery.cli.terminal.output import any_text, join_output, separate_output
from lottery.state.machine.bars import bars_wanted, with_bar
from lottery.state.machine.telling import say_stored
from tests.lottery.helpers import blobs, tiny_model

TINY = ["--levels", "1", "--steps", "20", "--set", "tolerance=1.0"]
CHATTY = """
import ctypes, os, sys
import torch
from torch import nn
print("loading", flush=True)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        print("made")

    def forward(self, x):
        print("running")
        sys.__stdout__.write("early\\n")
        os.write(1, b"written\\n")
        ctypes.CDLL(None).puts(b"from C")
        return self.fc(x.flatten(1))
"""


class Logger:
    """What a program may put in the place of a stream: it writes, and can do nothing else."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "chatty", raising=False)
    (tmp_path / "chatty.py").write_text(CHATTY)


def lottery(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "lottery", *words]
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(command, env=where, capture_output=True, text=True, check=False)


def test_whatever_a_users_code_prints_is_no_result(tmp_path):
    (tmp_path / "chatty.py").write_text(CHATTY + "import atexit\natexit.register(print, 'leaving')\n")
    done = lottery("prune", "--model", "chatty:Net", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["levels"][1]["kept"] == 512
    for said in ("loading", "made", "running", "early", "written", "from C", "leaving", "Winning ticket"):
        assert said in done.stderr


def test_a_result_that_nobody_wants_is_no_error_while_the_rest_goes_to_a_pipe():
    command = [sys.executable, "-m", "lottery", "list", "models", "--json"]
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_with_json_prints_one_object(capfd, tmp_path):
    def found(*words):
        code = run([*words, "--json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out)

    model = ["--model", "chatty:Net"]
    run_path = found("prune", *model, *TINY)["run"]
    other = found("prune", *model, *TINY, "--lr", "0.01")["run"]
    dense, ticket = f"{run_path}/seed-0/level-00", f"{run_path}/seed-0/level-01"
    assert found("show", run_path)["run"] == run_path
    assert found("show", run_path, "--analysis", "layer-density", *model).keys() == {"layer-density"}
    assert len(found("show", run_path, other)["runs"]) == 2
    assert found("train", ticket, *model, "--steps", "10")["from"] == ticket
    assert found("ablate", run_path, "--kind", "random-mask", *model)["levels"]
    assert found("instability", run_path, "--copies", "2", "--points", "3", *model)["figure"]
    assert found("connect", dense, ticket, "--points", "3", *model).keys() >= {"figure"}
    assert found("transfer", run_path, other, *model, "--out", str(tmp_path / "t")).keys() >= {"figure"}
    assert found("export", ticket, "--to", "csr", *model)["to"] == "csr"
    assert found("bench", "sparse", ticket, *model, "--batch-size", "4", "--repeats", "1")["rows"]
    assert found("list", "models")["items"]


def test_quiet_prints_a_path_and_nothing_else(capfd):
    assert run(["prune", "--model", "chatty:Net", *TINY, "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1 and Path(out.strip()).is_dir()
    assert "made" in err and "Winning" not in err


def test_help_and_errors_go_where_they_went_before(capfd):
    assert run(["prune", "--json", "--help"]) == 0
    assert "Usage: lottery prune" in capfd.readouterr().out
    assert run(["prune", "--json", "--model", "nope"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("lottery: unknown model")


def test_standard_output_is_as_it_was_afterwards(capfd):
    before = sys.stdout
    run(["list", "models", "--json"])
    assert sys.stdout is before
    os.write(1, b"still here\n")
    assert capfd.readouterr().out.endswith("still here\n")


def closed() -> io.StringIO:
    """A stream that was closed."""
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Logger, lambda: None, closed], ids=["logger", "none", "closed"])
@pytest.mark.parametrize("name", ["stderr", "stdout"])
def test_a_search_does_without_a_stream(monkeypatch, name, make):
    monkeypatch.setattr(sys, name, make())
    assert find_ticket(tiny_model(), blobs(), levels=1, steps=10, tolerance=1.0).density < 1
    for words in ([], ["--json"], ["--quiet"]):
        assert run(["prune", *TINY, *words]) == 0
    assert run(["prune", "--model", "nope"]) == 2


def test_json_reaches_a_stream_without_a_descriptor(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Logger())
    assert run(["list", "models", "--json"]) == 0
    text = sys.stdout.text  # pyright: ignore[reportAttributeAccessIssue]
    assert json.loads(text)["items"]


def test_bars_are_wanted_on_a_terminal_only(monkeypatch):
    class Terminal(Logger):
        def isatty(self):
            return True

    for stream, wanted in ((Terminal(), True), (Logger(), False), (None, False), (closed(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert bars_wanted() == wanted and not bars_wanted(quiet=True)
        assert list(with_bar([1, 2], "pairs")) == [1, 2]


@pytest.mark.parametrize("columns", ["0", "1", "-3"])
def test_a_terminal_may_have_no_width(monkeypatch, columns):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    assert run(["prune", *TINY]) == 0


def test_what_an_encoding_lacks_is_escaped():
    """The table holds dashes, and a path may hold anything."""
    out = "tïckets"
    done = lottery("prune", *TINY, "--out", out, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Winning ticket" in done.stdout and done.stdout.isascii()
    done = lottery("prune", *TINY, "--out", out, "--json", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0 and done.stdout.isascii()
    assert json.loads(done.stdout)["run"].startswith(out)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell that closes descriptors")
def test_descriptors_that_the_parent_closed_are_no_files_of_ours():
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = f"{sys.executable} -m lottery prune --model chatty:Net {' '.join(TINY)} --json >&- 2>&- <&-"
    assert subprocess.run(command, shell=True, env=here, check=False).returncode == 0
    (folder,) = Path("runs").glob("digits*")
    assert json.loads((folder / "summary.json").read_text())["levels"]
    assert all("running" not in path.read_text(errors="replace") for path in Path("runs").rglob("*") if path.is_file())


def test_between_separating_and_joining_everything_goes_to_standard_error_but_the_result(capfd):
    output = separate_output()
    print("printed")
    os.write(1, b"from C\n")
    output.write("the result")
    join_output(output)
    print("afterwards")
    out, err = capfd.readouterr()
    assert out == "the result\nafterwards\n"
    assert err == "printed\nfrom C\n"


def test_descriptors_that_a_parent_closed_are_open_again():
    script = "import os; os.close(1); from lottery.cli.terminal.output import open_descriptors; open_descriptors(); "
    script += "os.fstat(1); print('forgotten')"
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=where, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stream_takes_any_text_in_a_block_and_is_strict_again_afterwards(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    with any_text():
        print("3 µm")
    assert written.getvalue() == b"3 \\xb5m\n"
    with pytest.raises(UnicodeEncodeError):
        print("3 µm")


def test_stored_trainings_are_told_of_and_none_is_no_line(tmp_path, capsys):
    say_stored(tmp_path, [], 2, "--force")
    assert capsys.readouterr().err == ""
    (tmp_path / "config.json").write_text("{}")
    os.utime(tmp_path / "config.json", (1e9, 1e9))
    say_stored(tmp_path, [tmp_path], 2, "--force")
    say_stored(tmp_path, [tmp_path], 1, "--force")
    some, everything = capsys.readouterr().err.splitlines()
    assert "1 of 2 trainings are stored, made 2001-09-" in some and some.endswith("(--force starts over)")
    assert "a stored result, made 2001-09-" in everything and "nothing was trained" in everything
