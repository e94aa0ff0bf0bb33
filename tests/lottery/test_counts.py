"""A count that makes no sense is one clear error, before anything is trained; one that is too large means all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery import find_ticket
from lottery.bench import timed_rounds
from lottery.bench.sparse import bench_sparse
from lottery.bench.tickets import sparse_reports
from lottery.runs.ticket import Ticket
from lottery.settings.config import SearchConfig
from lottery.state.counts import check_count
from lottery.studies.ablation.running import ablate
from lottery.studies.analyses import study
from lottery.studies.analyses.cka import cka as plain_cka
from lottery.studies.analyses.connectivity import connectivity as plain_connectivity
from lottery.studies.analyses.filter_energy import filter_energy as plain_filter_energy
from lottery.studies.analyses.sharpness import sharpness as plain_sharpness
from lottery.studies.connection.tickets import connect
from lottery.studies.instability.running import instability
from lottery.trainers.gd.config import GDConfig
from pruning.errors import BadValue
from pruning.sparse.choices import Choosing
from tests.lottery.test_cli import lottery

# The registry's type for an analysis names the study alone.
cka: Any = plain_cka
connectivity: Any = plain_connectivity
filter_energy: Any = plain_filter_energy
sharpness: Any = plain_sharpness

NONSENSE = [0, -5, math.nan, 2.5, True]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counts")
    ticket = find_ticket("mlp", "digits", levels=1, steps=5, tolerance=1.0, replicates=2, out=folder, quiet=True)
    assert ticket.search is not None and ticket.search.run is not None
    return Path(ticket.search.run)


def tickets(run: Path) -> list[Path]:
    return [run / "seed-0" / "level-01", run / "seed-1" / "level-01"]


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize("what", ["connect", "connectivity", "cka", "sharpness", "filter-energy", "instability"])
def test_no_examples_is_an_error(run, what, value):
    calls = {
        "connect": lambda: connect(tickets(run), points=2, examples=value),
        "instability": lambda: instability(run, copies=2, points=2, examples=value),
        "connectivity": lambda: connectivity(study(run), examples=value),
        "cka": lambda: cka(study(run), examples=value),
        "sharpness": lambda: sharpness(study(run), examples=value),
        "filter-energy": lambda: filter_energy(study(run), examples=value),
    }
    with pytest.raises(BadValue, match=r"^examples must be "):
        calls[what]()
    assert not (run / "instability").exists(), "nothing is trained for it"


@pytest.mark.parametrize("value", [1, *NONSENSE])
@pytest.mark.parametrize("name", ["points", "copies"])
def test_a_line_has_two_ends(run, name, value):
    with pytest.raises(BadValue, match=rf"^{name} must be "):
        instability(run, **{"copies": 2, "points": 2, name: value})
    if name == "points":
        with pytest.raises(BadValue, match=r"^points must be "):
            connect(tickets(run), points=value)


@pytest.mark.parametrize("value", NONSENSE)
def test_the_same_of_every_other_count(run, value):
    for call in (
        lambda: ablate(run, "reinit", repeats=value),
        lambda: sharpness(study(run), iterations=value),
        lambda: sharpness(study(run), probes=value),
        lambda: sharpness(study(run), directions=value),
        lambda: timed_rounds({}, value),
        lambda: bench_sparse("", value, "cpu"),
        lambda: list(sparse_reports(Ticket.load(tickets(run)[0]), batches=[8, value])),
    ):
        with pytest.raises(BadValue, match=r"must be |are whole numbers from 1"):
            call()
    assert not (run / "ablations").exists()


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_step_of_no_size(run, sigma):
    with pytest.raises(BadValue, match="finite sigmas of 0 or more"):
        sharpness(study(run), examples=8, iterations=1, probes=2, sigmas=(0.1, sigma))


@pytest.mark.parametrize("value", [0, -1, math.nan])
@pytest.mark.parametrize("name", ["score_examples", "score_probes", "score_steps"])
def test_settings(name, value):
    with pytest.raises(BadValue, match=name):
        SearchConfig(**{name: value})


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_settings_of_gradient_descent(value):
    with pytest.raises(BadValue, match="std_examples"):
        GDConfig(std_examples=value)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_seconds_to_time_a_candidate(seconds):
    with pytest.raises(BadValue, match="finite and not negative"):
        Choosing(seconds=seconds)


def test_more_than_there_are_is_all(run):
    huge = connect(tickets(run), points=2, examples=10**12)
    everything = connect(tickets(run), points=2)
    for one, other in zip(huge.pairs, everything.pairs, strict=True):
        for part, curve in one.line.curves.items():
            assert np.array_equal(curve.error, other.line.curves[part].error) and np.isfinite(curve.error).all()


@pytest.mark.parametrize(
    "words",
    [
        ["connect", "A", "B", "--points", "2", "--examples", "0"],
        ["connect", "A", "B", "--points", "2", "--examples", "-3"],
        ["connect", "A", "B", "--points", "1"],
        ["instability", "RUN", "--examples", "0"],
        ["instability", "RUN", "--examples", "-3"],
        ["instability", "RUN", "--copies", "1"],
        ["instability", "RUN", "--points", "0"],
        ["ablate", "RUN", "--kind", "reinit", "--repeats", "0"],
        ["bench", "sparse", "A", "--batch-size", "0"],
        ["bench", "search", "--repeats", "0"],
    ],
)
def test_on_the_command_line_it_is_one_line_and_exit_code_2(run, capsys, words):
    places = dict(zip(("A", "B", "RUN"), map(str, [*tickets(run), run]), strict=True))
    code, out, err = lottery(capsys, *[places.get(word, word) for word in words])
    assert code == 2 and not out and "Traceback" not in err
    assert not (run / "instability").exists() and not (run / "ablations").exists()


def test_on_the_command_line_huge_is_all(run, capsys):
    a, b = map(str, tickets(run))
    code, out, _ = lottery(capsys, "connect", a, b, "--points", "2", "--examples", str(10**12), "--json")
    found: Any = json.loads(out)
    assert code == 0 and all(np.isfinite(part["error"]).all() for part in found["pairs"][0]["parts"].values())


def test_numpys_whole_numbers_are_whole_numbers():
    check_count("examples", np.int64(3))
    with pytest.raises(BadValue, match="a whole number from 1, not nan"):
        check_count("examples", math.nan)
