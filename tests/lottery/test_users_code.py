"""What a user's own code raises, wherever it runs, is one line with its file and line; an exit is no success."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from torch import nn

from lottery import Ticket, find_ticket
from lottery.cli.app import run
from pruning.errors import LotteryError, RunError, UnknownName
from tests.lottery.helpers import blobs, tiny_model

TINY = ["--levels", "1", "--steps", "12", "--set", "tolerance=1.0", "--quiet"]
HEAD = """
import sys, typer
from torch import nn
def fail(): raise RAISED
def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
class Net(nn.Module):
    calls = 0
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(64, 10)
    def forward(self, x):
        Net.calls += 1
        if Net.calls > LATE: fail()
        return self.fc(x.flatten(1))
"""
PLACES = {
    "import": ("fail()\nnet = make\n", []),
    "maker": ("def net(): fail()\n", []),
    "maker of a seed": ("def net(seed): fail()\n", []),
    "maker of sizes": ("def net(shape, outputs): fail()\n", []),
    "second replicate": ("def net(seed): return fail() if seed else make()\n", ["--replicates", "2"]),
    "copy": ("class net(Net):\n    def __deepcopy__(self, memo): fail()\n", []),
    "first forward pass": ("LATE = 0\nnet = Net\n", []),
    "later forward pass": ("LATE = 9\nnet = Net\n", []),
    "first score": ("net = make\ndef score(trained, job): fail()\n", ["--criterion", "users:score"]),
    "later score": (
        "net = make\nSEEN = []\n"
        "def score(trained, job):\n"
        "    if SEEN: fail()\n"
        "    SEEN.append(1)\n"
        "    return {name: abs(trained.params[name]) for name in job.mask}\n",
        ["--criterion", "users:score"],
    ),
}
ENDINGS = ["ValueError('out of luck')", "SystemExit(0)", "typer.Exit(0)", "typer.Abort()", "GeneratorExit()"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "users", raising=False)


def write(body: str, raised: str) -> None:
    """Write the user's module."""
    late = "" if "LATE" in body else "LATE = 99999\n"
    Path("users.py").write_text(f"{HEAD}{late}{body}".replace("RAISED", raised))


@pytest.mark.parametrize("raised", ENDINGS)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_one_line_with_its_place_and_no_success(capsys, place, raised):
    body, words = PLACES[place]
    write(body, raised)
    code = run(["prune", "--model", "users:net", *TINY, *words])
    out, err = capsys.readouterr()
    assert code in ((1, 2) if raised.startswith(("ValueError", "typer")) else (1,)), err
    assert out == "" and len(err.splitlines()) == 1
    assert "users.py, line 4" in err


def test_an_interrupt_stays_an_interrupt(capsys):
    write("def net(): fail()\n", "KeyboardInterrupt()")
    assert run(["prune", "--model", "users:net", *TINY]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_module_that_is_missing_is_told_from_one_that_it_misses(capsys):
    write("import not_there_at_all\n", "ValueError()")
    assert run(["prune", "--model", "users:net", *TINY]) == 1
    err = capsys.readouterr().err
    assert "ModuleNotFoundError: No module named 'not_there_at_all'" in err and "users.py, line 15" in err
    assert run(["prune", "--model", "usres:net", *TINY]) == 2
    assert "there is no module 'usres'" in capsys.readouterr().err


def exits(*_):
    """A user's function that ends the program."""
    sys.exit(0)


class Exits(nn.Module):
    """A model that ends the program."""

    def forward(self, x):
        """End it."""
        sys.exit(0)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (exits, {}),
        (lambda seed: exits(), {"replicates": 2}),
        (nn.Sequential(nn.Linear(6, 3), Exits()), {}),
        (tiny_model, {"criterion": exits}),
        (lambda: ({"w": jnp.ones((6, 3))}, exits()), {"trainer": "es"}),
    ],
    ids=["maker", "maker of a seed", "forward", "criterion", "jax maker"],
)
def test_a_program_that_searches_is_not_ended_by_its_model(tmp_path, model, options):
    with pytest.raises(LotteryError, match=r"SystemExit: 0 \(.*test_users_code.py, line \d+\)"):
        find_ticket(model, blobs(), out=tmp_path, levels=1, quiet=True, **options)


def test_a_maker_that_fails_when_a_ticket_is_opened(tmp_path):
    ticket = find_ticket(tiny_model(), blobs(), out=tmp_path, levels=1, steps=10, tolerance=1.0, quiet=True)
    assert ticket.path is not None
    loaded = Ticket.load(ticket.path)
    for opened in (loaded.rewound, loaded.trained, loaded.sparse):
        with pytest.raises(RunError, match=r"the model fails: SystemExit: 0 \(.*test_users_code.py"):
            opened(exits)
    with pytest.raises(UnknownName, match="no module 'nowhere'"):
        loaded.trained("nowhere:net")
    with pytest.raises(LotteryError, match="does not say which arguments it takes"):
        loaded.trained(dict)
