"""`results/on-gpu/run`: its commands are real ones, and what it promises of time, of failures, and of going on."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from lottery.bench import BENCHMARKS
from lottery.cli.commands import command_line

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "results" / "on-gpu"
MODULES = ("slices", "summary", "processes", "running")
RUN = str(SCRIPTS / "run")
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu"}


def _imported() -> dict[str, ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(SCRIPTS))


SCRIPT = _imported()
SLICES = SCRIPT["slices"].SLICES
named = pytest.mark.parametrize("part", SLICES, ids=lambda part: part.name)


@pytest.fixture(autouse=True)
def _work(tmp_path, monkeypatch):
    """Whatever is large goes into the test's folder; signals are given back."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(SCRIPT["running"].tempfile, "tempdir", None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    SCRIPT["running"].tempfile.tempdir = None


def records(results: Path) -> dict[str, dict]:
    return {each["name"]: each for each in json.loads((results / "summary.json").read_text())["slices"]}


class TestCommands:
    @named
    @pytest.mark.parametrize("tiny", [False, True], ids=["whole", "tiny"])
    def test_the_words_of_a_command_are_understood(self, part, tiny):
        given = (*part.command, *(part.tiny if tiny else ()))
        program, *words = SCRIPT["slices"].filled(given, lambda name: "cpu")
        assert not any("{" in word for word in words)
        if program == "python":
            assert (ROOT / words[0]).is_file()
        elif program == "lottery":
            name, *rest = words
            commands = typer.main.get_command(command_line(words)).commands  # pyright: ignore
            context = commands[name].make_context(name, rest)
            assert name != "bench" or context.params["what"] in BENCHMARKS.names()
        else:
            assert program == "pytest"

    @named
    def test_a_word_that_no_command_has_would_be_seen(self, part):
        if part.command[0] == "lottery":
            name, *rest = part.command[1:]
            commands = typer.main.get_command(command_line([name, *rest])).commands  # pyright: ignore
            with pytest.raises(typer.TyperException):
                commands[name].make_context(name, [*rest, "--no-such-word"])

    @named
    def test_the_constants_that_are_set_are_there(self, part):
        for text in (*part.sizes, *part.tiny_sizes):
            module, _, assignment = text.partition(":")
            assert hasattr(importlib.import_module(module), assignment.partition("=")[0]), text

    @pytest.mark.parametrize("part", [p for p in SLICES if p.command[0] == "pytest"], ids=lambda part: part.name)
    @pytest.mark.parametrize("tiny", [False, True], ids=["whole", "tiny"])
    def test_a_selection_of_tests_has_some(self, part, tiny):
        words = [*part.command[1:], *(part.tiny if tiny else ())]
        assert all((ROOT / word).is_file() for word in words if word.endswith(".py"))
        command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-o", "addopts=", "--import-mode=importlib"]
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]

    def test_a_slice_goes_on_with_one_that_comes_before_it(self):
        names = [part.name for part in SLICES]
        assert len(set(names)) == len(names)
        for number, part in enumerate(SLICES):
            assert part.least < part.most
            assert not part.after or part.after in names[:number]


def python(name, code, **more):
    return SCRIPT["slices"].Slice(name, **{"least": 0.001, "most": 1.0, "command": ("python", "-c", code), **more})


REFUSED = 70
# The script in a process of its own, with other slices, which read no images: a child's memory is never less than that
# of the process that it was forked from, and this one may be large and have threads.
ALONE = f"""
import dataclasses, pickle, sys
sys.path.insert(0, {str(SCRIPTS)!r})
import running
running.SLICES = pickle.load(sys.stdin.buffer)
prepared = running.prepared
def without_images(given):
    given.data = given.data or "none"
    return prepared(given)
running.prepared = without_images
try:
    sys.exit(running.main(sys.argv[1:]))
except SystemExit as ended:
    if not isinstance(ended.code, str):
        raise
    print(ended.code, file=sys.stderr)
    sys.exit({REFUSED})
"""


def run(results: Path, *slices, minutes="5", more=()) -> int:
    words = [str(results), minutes, "--device", "cpu", *more]
    done = subprocess.run([sys.executable, "-c", ALONE, *words], input=pickle.dumps(slices), capture_output=True)
    print(done.stdout.decode())
    if done.returncode == REFUSED:
        raise SystemExit(done.stderr.decode())
    assert not done.stderr, done.stderr.decode()
    return done.returncode


FOUND = 'print(\'{"winning": null, "levels": [], "device": "cpu", "seconds": 1.0, "run": "%s"}\')'


class TestRunning:
    def test_one_that_fails_stops_no_other_and_is_run_again(self, tmp_path, capsys):
        results, mark = tmp_path / "results", tmp_path / "mark"
        fails = f"import os, sys; print('tried'); sys.exit(0 if os.path.exists({str(mark)!r}) else 3)"
        slices = python("first", "print('one')"), python("second", fails), python("third", "print('three')")
        assert run(results, *slices) == 1
        assert [(each["exit"], each["last"]) for each in records(results).values()] == [
            (0, "one"),
            (3, "tried"),
            (0, "three"),
        ]
        mark.touch()
        capsys.readouterr()
        assert run(results, *slices) == 0
        said = capsys.readouterr().out
        assert "first: done before" in said and "third: done before" in said and "second: exit 0" in said
        assert [each["attempts"] for each in records(results).values()] == [1, 2, 1]

    def test_one_that_hangs_is_ended_with_what_it_started(self, tmp_path):
        child = tmp_path / "child"
        code = (
            "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"p = subprocess.Popen(['sleep', '600']); open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(600)"
        )
        began = time.monotonic()
        assert run(tmp_path / "results", python("hangs", code, most=0.02), python("next", "print(1)")) == 1
        assert time.monotonic() - began < 30
        found = records(tmp_path / "results")
        assert found["hangs"]["exit"] == 124 and 2 < found["hangs"]["seconds"] < 10 and found["next"]["exit"] == 0
        assert not _runs(int(child.read_text()))

    def test_time_that_is_too_short_begins_nothing(self, tmp_path):
        slices = python("short", "print(1)"), python("long", "print(2)", least=0.15, most=7.0)
        assert run(tmp_path / "results", *slices, minutes="0.1") == 0
        found = records(tmp_path / "results")
        assert found["short"]["exit"] == 0 and found["long"]["exit"] is None
        assert "it needs 0.15" in found["long"]["state"]
        assert run(tmp_path / "results", *slices, minutes="1") == 0
        assert records(tmp_path / "results")["long"]["exit"] == 0

    def test_one_goes_on_with_the_run_of_another_or_is_not_begun(self, tmp_path):
        results, there = tmp_path / "results", tmp_path / "run"
        first = python("first", FOUND % there, json=True)
        code = "import sys; print(sys.argv[1])"
        second = python("second", code, command=("python", "-c", code, "{run:first}"), after="first")
        for attempts in (1, 2):
            run(results, first, second)
            assert records(results)["second"]["state"] == "not begun: first left no run"
            assert records(results)["first"]["attempts"] == attempts
        there.mkdir()
        assert run(results, first, second) == 0
        assert records(results)["second"]["last"] == str(there)

    def test_output_that_is_no_json_is_no_success(self, tmp_path):
        assert run(tmp_path / "results", python("broken", "print('{')", json=True)) == 1
        assert "no numbers (JSONDecodeError)" in records(tmp_path / "results")["broken"]["last"]

    def test_tests_of_which_none_passed_are_no_success(self, tmp_path):
        skipped = tmp_path / "test_skipped.py"
        skipped.write_text("import pytest\n\n@pytest.mark.skip\ndef test_one(): pass\n")
        assert run(tmp_path / "results", python("none", "", command=("pytest", str(skipped)))) == 1
        assert records(tmp_path / "results")["none"]["exit"] == 5

    def test_memory_is_that_of_the_slice(self, tmp_path):
        large = "x = b'x' * (900 * 2**20); print(len(x))"
        run(tmp_path / "results", python("large", large), python("small", "print(1)"))
        found = records(tmp_path / "results")
        assert found["large"]["host_mib"] > 900 > found["small"]["host_mib"] > 5

    def test_results_are_a_few_small_files_and_one_pack(self, tmp_path):
        results, pack = tmp_path / "results", tmp_path / "pack.tar.gz"
        run(results, python("loud", "print('x' * 10**6)"), python("two", FOUND, json=True), more=["--pack", str(pack)])
        assert all(path.is_file() and path.stat().st_size < 100_000 for path in results.iterdir())
        with tarfile.open(pack) as archive:
            assert sorted(archive.getnames()) == sorted(path.name for path in results.iterdir())
        assert "| loud | 0 |" in (results / "summary.md").read_text()

    def test_results_of_other_sizes_are_not_gone_on_with(self, tmp_path):
        run(tmp_path / "results", python("one", "print(1)"))
        with pytest.raises(SystemExit, match="holds results with data none: name another folder"):
            run(tmp_path / "results", python("one", "print(1)"), more=["--data", "other"])


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_card_s_lines_are_read():
    card = SCRIPT["processes"].Card()
    for line in ("1024, 345", "40960, 1980\n", "512, [N/A]", "No devices were found"):
        card.see(line)
    assert (card.mib, card.mhz) == (40960.0, 1980.0)


def _begun(results: Path, name: str) -> Iterator[bool]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        file = results / "summary.json"
        if file.exists() and records(results).get(name, {}).get("state") == "begun":
            return
        yield True
        time.sleep(0.05)
    raise AssertionError(f"{name} was never begun")


def test_killed_in_the_middle_and_gone_on_with(tmp_path):
    results = tmp_path / "results"
    command = [RUN, str(results), "8", "--only", "machine", "--only", "prune-digits"]
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path, stdout=subprocess.PIPE)
    for _ in _begun(results, "prune-digits"):
        assert process.poll() is None
    time.sleep(1)
    process.kill()
    process.communicate()
    cut = records(results)
    assert cut["machine"]["exit"] == 0 and cut["prune-digits"]["exit"] is None
    done = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machine: done before" in done.stdout and len(done.stdout) < 2000
    found = records(results)
    assert found["prune-digits"]["exit"] == 0 and found["prune-digits"]["attempts"] == 2
    assert found["prune-digits"]["numbers"]["device"] == "cpu"
    assert "## prune-digits" in (results / "summary.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_slice_is_rehearsed(tmp_path):
    results = tmp_path / "results"
    done = subprocess.run([RUN, str(results), "24"], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    found = records(results)
    assert list(found) == [part.name for part in SLICES]
    assert {name: each["exit"] for name, each in found.items()} == dict.fromkeys(found, 0), done.stdout
    assert all(path.is_file() for path in results.iterdir())
    for part in SLICES:
        assert found[part.name].get("numbers") or not part.prints_json
