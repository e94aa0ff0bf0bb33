"""Tickets run sparse: `ticket.sparse`, and `lottery bench sparse` for random masks and for a stored ticket."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lottery import Ticket, find_ticket
from lottery.bench.tickets import sparse_reports
from lottery.cli.app import run
from lottery.networks.models import MODELS
from pruning.errors import BadValue, MaskMismatch
from pruning.sparse.choices import Choosing

QUICK = Choosing(cache=None, seconds=0.0)
FORCED = Choosing(backend="bags", cache=None)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory) -> Ticket:
    folder = tmp_path_factory.mktemp("runs")
    return find_ticket("mlp", "digits", levels=3, prune_rate=0.5, steps=60, tolerance=0.2, out=folder, quiet=True)


def mlp() -> nn.Module:
    return MODELS["mlp"].value((1, 8, 8), 10)


def lottery(capsys, *words: str) -> tuple[int, str, str]:
    code = run(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_ticket_runs_sparse_with_its_trained_weights(ticket):
    images = torch.randn(20, 1, 8, 8)
    fast = ticket.sparse(mlp, images, choosing=FORCED)
    dense = ticket.trained(mlp).eval()
    assert not fast.training
    with torch.no_grad():
        assert torch.allclose(fast(images), dense(images), rtol=1e-4, atol=1e-5)
        assert torch.allclose(fast(images[:3]), dense(images[:3]), rtol=1e-4, atol=1e-5)
    assert {layer.backend for layer in fast.report.layers} == {"bags"}
    assert sum(round(row.density * np.prod(row.shape)) for row in fast.report.layers) == ticket.mask.kept


def test_arrays_are_examples_too_and_a_ticket_without_trained_weights_runs_at_its_rewind_point(ticket):
    import dataclasses

    untrained = dataclasses.replace(ticket, trained_params=None)
    images = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    fast = untrained.sparse(mlp(), images, choosing=QUICK)
    with torch.no_grad():
        wanted = ticket.rewound(mlp).eval()(torch.from_numpy(images))
        assert torch.allclose(fast(torch.from_numpy(images)), wanted, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_one_line(ticket):
    with pytest.raises(MaskMismatch, match=r"has shape"):
        ticket.sparse(MODELS["mlp"].value((1, 9, 9), 10), torch.ones(2, 1, 9, 9))
    with pytest.raises(BadValue, match=r"does not take the example \(\[2, 1, 9, 9\] torch.float32\)"):
        ticket.sparse(mlp, torch.ones(2, 1, 9, 9))
    with pytest.raises(BadValue, match="an example is needed"):
        ticket.sparse(mlp)
    with pytest.raises(BadValue, match="batch sizes are whole numbers from 1"):
        list(sparse_reports(ticket, batches=[0]))


def test_bench_sparse_prints_the_report_of_a_stored_ticket(ticket, capsys, tmp_path):
    out = tmp_path / "report.json"
    code, text, _ = lottery(capsys, "bench", "sparse", str(ticket.path), "--batch-size", "4", "--out", str(out))
    assert code == 0
    assert "Batch 4" in text and "fc1.weight" in text and "whole network" in text and "pay" in text
    code, text, err = lottery(capsys, "bench", "sparse", str(ticket.path), "--batch-size", "4", "--json")
    stored, printed = json.loads(out.read_text()), json.loads(text)
    assert "fc1.weight" in err
    for result in (stored, printed):
        (row,) = result["rows"]
        assert [layer["name"] for layer in row["layers"]] == ["fc1.weight", "fc2.weight", "fc3.weight"]
        assert row["batch"][0] == 4 and row["dense_seconds"] > 0 and row["speedup"] >= 1


def test_bench_sparse_measures_random_masks_and_draws_them(capsys, monkeypatch, tmp_path):
    import lottery.bench.sparse as bench

    small = {"SHAPES": ((40, 30),), "BATCHES": (1, 8), "DENSITIES": (0.5, 0.05), "TRAINING": (32, 16, 8)}
    small |= {"NETWORK": "mlp", "NETWORK_BATCHES": (4,), "_SECONDS": 0.0, "_CHOICE_SECONDS": 0.0}
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    figure, out = tmp_path / "speedup.png", tmp_path / "cpu.json"
    words = ["bench", "sparse", "--repeats", "1", "--device", "cpu", "--figure", str(figure), "--out", str(out)]
    code, text, _ = lottery(capsys, *words)
    assert code == 0, text
    assert figure.stat().st_size > 1000
    rows = json.loads(out.read_text())["rows"]
    assert [row["kind"] for row in rows].count("product") == 4 * len(bench._precisions(torch.device("cpu")))
    assert {row["kind"] for row in rows} == {"product", "training", "network"}
    for row in rows:
        assert row["dense_seconds"] > 0 and row["seconds_per_run"] > 0
        assert row["speedup"] == 1 or (row["kind"], row["backend"]) != ("product", "dense")
    assert "40→30, batch 8, 5%, float32" in text and "slower than 1.05 of dense" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "TICKET"], "bench search takes no ticket"),
        (["sparse", "nowhere"], "nowhere: no such ticket directory"),
        (["sparse", "TICKET", "--figure", "a.png"], "the report of a ticket has no figure"),
        (["sparse", "--batch-size", "3"], "belong to a ticket"),
        (["sparze"], "did you mean 'sparse'"),
        (["search", "--figure", "a.png", "--data", "synthetic"], "bench search has no figure"),
    ],
)
def test_wrong_commands_are_one_line(ticket, capsys, monkeypatch, words, message):
    import lottery.bench.search as search
    from lottery.bench import BENCHMARKS, Report

    row = {"what": "", "seconds_per_run": 1.0, "fastest": 1.0, "slowest": 1.0, "speedup": 1.0, "device": "cpu"}
    monkeypatch.setitem(
        BENCHMARKS._entries,
        "search",
        type(BENCHMARKS["search"])("search", lambda *_: Report([row], "run", ""), "", search.__name__),
    )
    code, out, err = lottery(capsys, "bench", *[str(ticket.path) if word == "TICKET" else word for word in words])
    assert code == 2 and not out and message in err and len(err.splitlines()) == 1


def test_registries_are_listed(capsys):
    for kind, name in (("backends", "bags"), ("convolutions", "bags"), ("sparse-layers", "Linear"), ("exports", "csr")):
        code, text, _ = lottery(capsys, "list", kind, "--json")
        assert code == 0 and name in [item["name"] for item in json.loads(text)["items"]]


def test_the_readme_shows_the_report():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert "lottery bench sparse runs/" in text and "whole network" in text and "Sparsity pays" in text
