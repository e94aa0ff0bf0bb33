"""The examples of CONTRIBUTING.md: each is one new file and no edit elsewhere, and what it registers works by name."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lottery import ablate, analyze, find_ticket, start
from lottery.data import Data
from lottery.data.datasets import DATASETS
from lottery.networks.models import MODELS
from lottery.runs.directory import RunDirectory
from lottery.studies.ablation.controls import ABLATIONS
from lottery.studies.analyses import ANALYSES
from lottery.trainers import TRAINERS
from pruning.criteria import CRITERIA
from pruning.initializers import INITIALIZERS, draw, get_initializer
from pruning.registry import Registry
from pruning.sparse.backends import BACKENDS
from pruning.sparse.plans.plan import Plan
from pruning.starts.tensor import Layout, Tensor
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model
from tests.pruning.sparse_cases import MASKS, dense_product, problem
from tests.structure.house import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HOMES: dict[str, Registry] = {
    "pruning/criteria/lamp.py": CRITERIA,
    "pruning/initializers/random_walk.py": INITIALIZERS,
    "lottery/studies/ablation/controls/negate.py": ABLATIONS,
    "lottery/studies/analyses/sign_changes.py": ANALYSES,
    "pruning/sparse/backends/edges.py": BACKENDS,
    "lottery/networks/models/perceptron.py": MODELS,
    "lottery/data/datasets/wine.py": DATASETS,
    "lottery/trainers/signs.py": TRAINERS,
}
QUICK = {"levels": 2, "prune_rate": 0.5, "steps": 20, "tolerance": 1.0, "replicates": 1, "quiet": True}
BLOBS = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def blocks() -> dict[str, str]:
    """Every python block by the file that the sentence above it names first."""
    above, *rest = re.split(r"^```python\n", TEXT, flags=re.M)
    found = {}
    for part in rest:
        path = re.findall(r"^\*\*An? [^`]*`([\w/]+\.py)`", above, re.M)[-1]
        found[path], above = part.split("\n```\n", 1)
    assert len(found) == len(rest)
    return found


@pytest.fixture(scope="module", autouse=True)
def added(tmp_path_factory):
    """What every example registers when it is imported, from outside the packages; all is as it was afterwards."""
    # A registry discovers its package once: before its entries are noted.
    before = {path: {entry.name: entry for entry in registry} for path, registry in HOMES.items()}
    folder = tmp_path_factory.mktemp("examples")
    try:
        for path, block in blocks().items():
            execute(folder / Path(path).name, block)
        yield {path: registry._entries.keys() - before[path].keys() for path, registry in HOMES.items()}
    finally:
        for path, registry in HOMES.items():
            registry._entries.clear()
            registry._entries.update(before[path])


def execute(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"contributed_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    result = doctest.testmod(module)
    assert (result.failed, result.attempted) == (0, text.count(">>>"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    settings = QUICK | {"replicates": 2, "criterion": "lamp"}
    found = find_ticket(tiny_model, BLOBS, out=tmp_path_factory.mktemp("runs"), **settings).search
    assert found is not None
    return found


def test_every_block_has_a_new_file_in_the_folder_of_its_registry():
    assert blocks().keys() == HOMES.keys()
    for path, registry in HOMES.items():
        assert Path(path).parent.as_posix() == registry._package.replace(".", "/")
        assert not (ROOT / path).exists()


@pytest.mark.parametrize("path", HOMES)
def test_a_block_adds_one_entry_with_a_summary_and_a_source(added, path):
    (name,) = added[path]
    assert name == Path(path).stem.replace("_", "-")
    assert HOMES[path][name].summary and HOMES[path][name].source


def test_a_search_prunes_by_the_criterion(searched):
    run = RunDirectory(searched.run)
    trained = run.read_trained(0, 0).params
    squares = {name: np.square(trained[name], dtype=np.float64) for name in run.read_mask(0, 0)}
    # equation 4, weight by weight
    scores = {
        name: np.array([one / square[square >= one].sum() for one in square.ravel()]).reshape(square.shape)
        for name, square in squares.items()
    }
    mask = run.read_mask(0, 1)
    kept = np.concatenate([scores[name][keep] for name, keep in mask.items()])
    removed = np.concatenate([scores[name][~keep] for name, keep in mask.items()])
    assert searched.config["criterion"] == "lamp"
    assert len(removed) and kept.min() >= removed.max()


def test_a_start_is_drawn_by_the_scheme():
    values = np.stack([drawn("random-walk", seed) for seed in range(500)])
    # 3 units that sum over 4 live inputs each
    assert values.var() == pytest.approx(np.exp(1 / 3) / 4, rel=0.05)
    inputs = np.array([1.0, -2.0, 0.5, 3.0])
    logs = np.log(np.linalg.norm(values @ inputs, axis=1) / np.linalg.norm(inputs))
    assert logs.mean() == pytest.approx(0.5 * np.log(3 / 4), abs=0.1)  # |h|² adds up 3 units for 4 inputs


def drawn(name: str, seed: int) -> np.ndarray:
    tensor = Tensor("fc", np.ones((3, 4), bool), Layout((3, 4), (), (0,), (1,)))
    return draw([tensor], get_initializer(name), seed).values["fc"]


def test_the_scheme_serves_a_model_under_a_mask_in_at_most_20_lines():
    assert len(blocks()["pruning/initializers/random_walk.py"].splitlines()) <= 20
    begun = start("mlp", init="random-walk", init_params={"gain": 1.5}, density=0.3)
    assert begun.report.verdict.trainable and not begun.report.notes
    assert all((begun.ticket.params[name][~keep] == 0).all() for name, keep in begun.ticket.mask.items())


def test_a_run_is_ablated_by_the_control(searched):
    (control,) = ablate(searched.run, "negate", levels=[1], model=tiny_model, data=BLOBS)
    assert control.kind == "negate" and [level.level for level in control.levels] == [1]
    stored, run = RunDirectory(Path(searched.run) / "ablations" / "negate" / "repeat-0"), RunDirectory(searched.run)
    mask, start, ticket = run.read_mask(0, 1), stored.read_rewound(0, 1), run.read_rewound(0, 1)
    assert stored.read_mask(0, 1) == mask
    assert_same_arrays(start, {name: -value if name in mask else value for name, value in ticket.items()})


def test_a_run_is_analysed(searched):
    findings = analyze(searched.run, "sign-changes")
    run = RunDirectory(searched.run)
    for level in range(3):
        shares = []
        for seed in (0, 1):
            mask, start, end = (
                run.read_mask(seed, level),
                run.read_rewound(seed, level),
                run.read_delivered(seed, level),
            )
            pairs = [(start[n].flat[i], end[n].flat[i]) for n, keep in mask.items() for i in np.flatnonzero(keep)]
            shares.append(sum(a * b <= 0 for a, b in pairs) / len(pairs))
        assert findings.arrays["share"][level] == pytest.approx(np.mean(shares), abs=1e-12)
    assert 0 < findings.arrays["share"][0] < 1 and "n = 2" in findings.text
    figure = Figure()
    findings.draw(figure)
    assert len(figure.axes[0].lines) == 1


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_the_backend_is_the_masked_dense_product(mask):
    backend = BACKENDS["edges"].value
    assert backend.runs(torch.device("cpu"), torch.float64)
    values, inputs = problem(mask, 5, torch.float64)
    outputs, wanted = backend.product(values, inputs, Plan.of(mask)), dense_product(values, inputs, mask)
    assert torch.allclose(outputs, wanted, rtol=0, atol=1e-12)
    found = torch.autograd.grad(outputs.square().sum(), (values, inputs))
    for ours, theirs in zip(found, torch.autograd.grad(wanted.square().sum(), (values, inputs)), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


def test_a_search_takes_the_model_and_the_data_by_their_names(tmp_path):
    ticket = find_ticket("perceptron", "wine", out=tmp_path, **QUICK | {"steps": 100, "lr": 0.02})
    assert ticket.mask.shapes() == {"fc.weight": (3, 13)}
    assert ticket.search is not None and ticket.search.levels[0].validation > 0.8


def test_no_line_is_longer_than_120():
    assert [line for line in TEXT.splitlines() if len(line) > 120] == []
