"""Every `lottery …` line of the documents runs as it is written, on settings that make it small."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from lottery.bench import BENCHMARKS
from lottery.cli.app import run
from lottery.cli.commands import command_line

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "results/README.md")
# What is timed takes minutes; the tests of each benchmark run it on small sizes. Here its words are only read.
TIMED = re.compile(r"lottery bench (search|es|methods|init|sparse --(figure|device))\b")
# Images of these sizes stand for data that would be downloaded.
DOWNLOADED = {"mnist": "gray.npz", "fashion-mnist": "gray.npz", "cifar10": "colour.npz"}


def documented() -> list[str]:
    """The commands, each once: what follows a prompt, without comments, and apart where one line has several."""
    found: dict[str, None] = {}
    for name in DOCUMENTS:
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("$ "):
                for command in re.split(r"&&|;", line[2:].partition(" # ")[0].partition("  #")[0]):
                    if command.strip().startswith("lottery"):
                        found[command.strip()] = None
    return list(found)


def test_documents_have_commands():
    assert len(documented()) > 40 and "lottery prune" in documented()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with two small runs, data, and a package of the user's."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "nets.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))\n"
    )
    (folder / "my_package" / "scores.py").write_text(
        "def mine(trained, job):\n    return {name: abs(trained.params[name]) for name in job.mask}\n"
    )
    rng = np.random.Generator(np.random.PCG64(0))
    for name, shape in (("gray", (28, 28)), ("colour", (32, 32, 3)), ("images", (28, 28))):
        x = rng.integers(0, 255, (80, *shape), dtype=np.uint8)
        y = np.arange(80) % 10
        np.savez(folder / f"{name}.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = ["prune", "--replicates", "2", "--steps", "210", "--levels", "3", "--prune-rate", "0.5"]
        tiny += ["--set", "tolerance=1.0", "--set", "eval_every=210", "--quiet"]
        assert run([*tiny]) == 0
        assert run([*tiny, "--criterion", "random"]) == 0
    runs = sorted((folder / "runs").glob("digits-*"), key=lambda path: "random" in path.name)
    assert len(runs) == 2
    return folder, runs


def real(word: str, runs: list[Path], seen: list[str]) -> str | None:
    """What a word of a command stands for: a run or a ticket that is there; None for one that stands for nothing."""
    match = re.fullmatch(r"(RUN|TICKET|\$RUN|\$GD|\$ES|runs/[^/]*)(/seed-\d+/level-\d+)?", word)
    if match is None:
        return None if word == "…" else word
    name, ticket = match.groups()
    again = name in ("RUN", "TICKET") and name in seen
    other = name == "$ES" or again or ("$RUN" in seen and name.startswith("runs/"))
    seen.append(name)
    place = str(runs[other] if not name.endswith("*") else runs[0])
    if name == "TICKET":
        return f"{runs[0]}/seed-{int(other)}/level-03"
    return place + (re.sub(r"level-\d+", "level-03", ticket) if ticket else "")


def words_of(command: str, runs: list[Path]) -> list[str]:
    """The words of a command with everything put in that a reader puts in."""
    seen: list[str] = []
    written = shlex.split(command.partition(" > ")[0])[1:]
    words = [each for word in written if (each := real(word, runs, seen)) is not None]
    words = [each for number, each in enumerate(words) if not (each in map(str, runs) and each in words[:number])]
    if any(word.startswith("runs/") and word.endswith("*") for word in written):
        words[2:2] = [str(runs[1])]  # a pattern of the shell stands for all runs
    return words


def smaller(words: list[str]) -> list[str]:
    """Options that come after a command's own and leave it as it is, but for how long it takes."""
    from lottery.settings.recipes import recipe_layers
    from lottery.trainers.choosing import layer

    command, text = words[0], " ".join(words)
    if command == "prune":
        recipe = layer(*recipe_layers(words[words.index("--recipe") + 1])) if "--recipe" in words else {}
        evolves = "--trainer es" in text or recipe.get("trainer") == "es"
        given = words[words.index("--data") + 1] if "--data" in words else str(recipe.get("data", "digits"))
        steps = ["--epochs", "0.1"] if "--epochs" in words else ["--steps", "510" if "--rewind" in words else "12"]
        more = ["--generations", "2", "--population", "4", "--set", "eval_every=1"] if evolves else steps
        if ":" in given:
            more += ["--set", "episodes=1", "--set", "episode_steps=5", "--set", "test_episodes=2"]
        if given in DOWNLOADED:
            more += ["--data", DOWNLOADED[given]]
        if given != "digits" and ":" not in given:
            more += ["--set", "validation_size=20"]
        if "densities" not in text:
            more += ["--prune-rate", "0.95"] if "--sparsity" in words else ["--levels", "1"]
        if not evolves:
            more += ["--set", "score_steps=5", "--set", "eval_every=600"]
        if "--data-diet" in words:
            more += ["--set", "data_diet_networks=2"]
        return [*more, "--replicates", "1", "--device", "cpu", "--set", "tolerance=1.0"]
    return {
        "train": ["--steps", "10"],
        "ablate": ["--levels", "3", "--repeats", "1"],
        "instability": ["--levels", "0,3", "--copies", "2", "--points", "3"],
        "connect": ["--points", "3"],
        "bench": ["--batch-size", "4", "--repeats", "1"],
        "export": ["--force"],
        "transfer": ["--level", "3"] if "--level" in words else [],
    }.get(command, [])


@pytest.mark.parametrize("command", [each for each in documented() if not TIMED.match(each)])
def test_a_documented_command_runs(command, workshop, monkeypatch, capsys):
    folder, runs = workshop
    if "gymnax" in command or "cartpole" in command:
        pytest.importorskip("gymnax")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = words_of(command, runs)
    code = run([*words, *smaller(words)])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", [each for each in documented() if TIMED.match(each)])
def test_the_words_of_a_benchmark_are_understood(command):
    words = shlex.split(command)[1:]
    group = typer.main.get_command(command_line(words))
    bench = group.commands["bench"]  # pyright: ignore[reportAttributeAccessIssue]
    assert bench.make_context("bench", words[1:]).params["what"] in BENCHMARKS.names()
