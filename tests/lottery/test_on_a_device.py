"""What must hold wherever it is computed: each test runs on the CPU and, where there is one, on a CUDA device.

Those that only walk through a registry are `slow` on the CPU: other files look at the same there, and closer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lottery import find_ticket
from lottery.cli.app import run
from lottery.data import Data
from lottery.networks.models import MODELS
from lottery.runs.ticket import Ticket
from lottery.search.data_scores import DATA_SCORES
from lottery.studies.ablation.controls import ABLATIONS
from lottery.studies.analyses import ANALYSES
from lottery.trainers.gd.moves import MOVES
from pruning.criteria import CRITERIA
from tests.lottery.helpers import blobs, removed, tiny_model

ROOT = Path(__file__).parents[2]
CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ON_CUDA = pytest.param("cuda", id="on-cuda", marks=CUDA)
on_each = pytest.mark.parametrize("device", [pytest.param("cpu", id="on-cpu"), ON_CUDA])
on_cuda = pytest.mark.parametrize("device", [pytest.param("cpu", id="on-cpu", marks=pytest.mark.slow), ON_CUDA])
TRAINERS = {
    "gd": {"steps": 40, "batch_size": 16, "lr": 0.01},
    "optax": {"steps": 40, "batch_size": 16, "lr": 0.01},
    "es": {"generations": 30, "population": 16, "batch_size": 32, "sigma": 0.1, "eval_every": 10},
}
each_trainer = pytest.mark.parametrize("trainer", TRAINERS)
PRUNE = ["prune", "--levels", "1", "--prune-rate", "0.5", "--set", "tolerance=1", "--json"]
SHORT = [*PRUNE, "--steps", "12", "--set", "score_steps=5", "--set", "eval_every=12"]
WAYS = {
    "adam's deviations": "--criterion snr --std adam",
    "fisher's deviations": "--criterion snr --std fisher",
    "swag's deviations": "--criterion snr --std swag",
    "bf16": "--precision bf16",
    "fp16": "--precision fp16",
    "a running average": "--ema 0.9",
    "clipped": "--clip-norm 0.1",
    "accumulated": "--accumulate 2",
    "momentum": "--optimizer sgd --momentum 0.9 --weight-decay 0.01",
    "smoothed labels": "--label-smoothing 0.1",
    "moved images": "--model conv-2 --augment flip-crop",
    "norms alone": "--model resnet-20 --train-only norm",
    "a late rewind": "--rewind 6",
    "stacked": "--replicates 3",
    "n of m": "--pattern n-m --pattern-params n=2 --pattern-params m=4",
    "early bird": "--early-bird 0.1 --set eval_every=3",
    "own starts": "--init unit-scaled --redraw",
    "repaired": "--repair isometry",
    "a rule for rates": "--lr-rule smupar --lr-rule-params base_width=32",
}


def found(out: Path, trainer: str, device: str, **settings):
    data = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
    given = {"levels": 2, "prune_rate": 0.5, "replicates": 2, "tolerance": 1.0, **TRAINERS[trainer], **settings}
    model = given.pop("model", tiny_model if trainer == "gd" else plain)
    ticket = find_ticket(model, data, trainer=trainer, device=device, out=out, **given)
    assert ticket.search is not None
    return ticket, ticket.search


def plain(seed=0):
    """6-8-3 with nothing that is random or keeps statistics."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def command(capsys, *words: str):
    code = run(list(words))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def stored(folder: Path) -> dict[str, bytes]:
    """Every array and history of a run, as bytes, by its place in the run."""
    kinds = (".safetensors", ".jsonl")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in kinds}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@on_each
@each_trainer
def test_a_search_keeps_its_promises(trainer, device, tmp_path):
    _, search = found(tmp_path, trainer, device)
    assert (search.device == "cpu") == (device == "cpu")
    assert search.levels[0].validation > 0.8  # three blobs; chance is a third
    for seed in (0, 1):
        tickets = [Ticket.load(level.replicates[seed].path) for level in search.levels]
        assert [ticket.mask.kept for ticket in tickets] == [72, 36, 18]
        for before, ticket in pairwise(tickets):
            assert all(np.all(before.mask[name] | ~keep) for name, keep in ticket.mask.items())
            assert ticket.trained_params is not None
            assert not np.any(removed(ticket.mask, ticket.trained_params))
            for name, keep in ticket.mask.items():
                assert np.array_equal(ticket.params[name][keep], tickets[0].params[name][keep])


@on_each
@each_trainer
def test_the_same_search_has_the_same_bits(trainer, device, tmp_path):
    for name in ("a", "b"):
        found(tmp_path / name, trainer, device)
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b")
    assert len(first) > 12 and first == second


@on_cuda
@each_trainer
def test_another_process_finds_the_same_bits(trainer, device, tmp_path):
    words = [*PRUNE, "--trainer", trainer, "--device", device, "--replicates", "2"]
    words += ["--generations", "6"] if trainer == "es" else ["--steps", "30"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for name in ("a", "b"):
        alone = [sys.executable, "-m", "lottery", *words, "--out", name]
        done = subprocess.run(alone, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b")
    assert len(first) > 6 and first == second


@on_cuda
@each_trainer
def test_a_device_trains_to_what_the_cpu_trains_to(trainer, device, tmp_path):
    """Up to rounding: a few steps without dropout, whose random numbers differ; evolution in float32, not TF32."""
    length = {"generations": 4, "precision": "float32"} if trainer == "es" else {"steps": 4}
    ends = []
    for where in ("cpu", device):
        _, search = found(tmp_path / f"{where}-{len(ends)}", trainer, where, model=plain, levels=1, **length)
        ends.append(Ticket.load(search.levels[0].replicates[0].path).trained_params)
    for name, value in ends[0].items():
        assert np.allclose(value, ends[1][name], rtol=1e-3, atol=1e-4), name


@on_cuda
@each_trainer
def test_a_model_that_lies_there_is_searched_and_stays_as_it_was(trainer, device, tmp_path):
    model = (tiny_model if trainer == "gd" else plain)().to(device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ticket, _ = found(tmp_path, trainer, device, model=model, replicates=1)
    for name, value in model.state_dict().items():
        assert value.device.type == device and torch.equal(value, before[name])
    inputs = torch.from_numpy(blobs(30)[0]).to(device)
    for masked in (ticket.rewound(model), ticket.trained(model)):
        assert {value.device.type for value in masked.state_dict().values()} == {device}
        masked(inputs)
    with torch.no_grad():
        dense, sparse = ticket.trained(model).eval()(inputs), ticket.sparse(model, inputs).eval()(inputs)
    assert sparse.device.type == device and torch.allclose(dense, sparse, rtol=1e-4, atol=1e-5)


@on_cuda
@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_every_criterion_scores_there(criterion, device, capsys):
    command(capsys, *SHORT, "--criterion", criterion, "--device", device)


@on_cuda
@pytest.mark.parametrize("model", [name for name in MODELS.names() if name not in ("policy", "vgg-16")])
def test_every_model_trains_there(model, device, capsys):
    command(capsys, *SHORT, "--model", model, "--device", device)


@on_cuda
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_works_there(way, device, capsys):
    command(capsys, *SHORT, "--device", device, *WAYS[way].split())


@on_cuda
@pytest.mark.parametrize("move", MOVES.names())
def test_every_mask_that_moves_works_there(move, device, capsys):
    command(capsys, *SHORT, "--device", device, "--moves", move, "--move-every", "3")


@on_cuda
@pytest.mark.parametrize("score", DATA_SCORES.names())
def test_every_data_diet_works_there(score, device, capsys):
    diet = ["--data-diet", "0.5", "--data-diet-score", score, "--set", "data_diet_networks=2"]
    command(capsys, *SHORT, "--device", device, *diet)


@on_cuda
@each_trainer
def test_controls_of_every_kind_train_there(trainer, device, capsys):
    length = ["--generations", "4", "--population", "8"] if trainer == "es" else ["--steps", "12", "--rewind", "6"]
    searched = command(capsys, *PRUNE, "--trainer", trainer, "--device", device, "--replicates", "2", *length)
    kinds = [word for name in ABLATIONS.names() if name != "rewind" for word in ("--kind", name)]
    controls = command(capsys, "ablate", searched["run"], *kinds, "--device", device, "--json")
    assert {level["kind"] for level in controls["levels"]} == {*kinds} - {"--kind"}


@on_cuda
def test_runs_are_studied_there(device, capsys):
    run_ = command(capsys, *SHORT, "--device", device, "--replicates", "2", "--set", "eval_every=4")["run"]
    ends = [f"{run_}/seed-{seed}/level-01" for seed in (0, 1)]
    command(capsys, "connect", *ends, "--points", "3", "--json")
    more = ["--levels", "0,1", "--copies", "2", "--device", device]
    command(capsys, "instability", run_, *more, "--points", "3", "--json")
    command(capsys, "train", ends[0], "--steps", "8", "--device", device, "--json")
    command(capsys, "bench", "sparse", ends[0], "--batch-size", "4", "--repeats", "1", "--device", device, "--json")
    for export in ("torch-prune", "parametrize", "csr", "compacted"):
        command(capsys, "export", ends[0], "--to", export, "--json")
    looks = [word for name in ANALYSES.names() for word in ("--analysis", name)]
    command(capsys, "show", run_, *looks, "--json")
