"""What is reported is what is handed back: the numbers of a ticket are those of the weights that it delivers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, Ticket, find_ticket
from lottery.results.delivery import report
from lottery.runs.directory import RunDirectory
from lottery.runs.network import ticket_network
from lottery.runs.reading import read_replicate
from lottery.studies.ablation.running import ablate
from lottery.studies.analyses import study
from lottery.studies.connection.tickets import connect
from pruning.errors import BadValue, Diverged
from pruning.jobs import Evaluation, Trained
from tests.lottery.helpers import assert_same_arrays, blobs, search

G = torch.Generator().manual_seed(0)
X = torch.randn(300, 6, generator=G)
# Half of the labels are noise: a network that trains on and on gets worse on what it has not seen.
Y = torch.where(torch.rand(300, generator=G) < 0.5, (X[:, 0] > 0).long(), torch.randint(0, 2, (300,), generator=G))
DATA = Data(train=(X[:60], Y[:60]), validation=(X[60:180], Y[60:180]), test=(X[180:], Y[180:]), name="noisy")
GD: dict[str, Any] = {"steps": 60, "lr": 0.05, "eval_every": 4}
ES: dict[str, Any] = {"trainer": "es", "generations": 24, "population": 8, "sigma": 0.3, "eval_every": 2}
SEARCH: dict[str, Any] = {"levels": 2, "tolerance": 1.0, "measure_at": "early-stop", "quiet": True}


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def accuracy(model: nn.Module, part: Any) -> float:
    inputs, labels = part
    with torch.no_grad():
        return (model.eval()(inputs).argmax(1) == labels).double().mean().item()


def searched(folder: Path, **settings: Any) -> RunDirectory:
    ticket = find_ticket(make, DATA, out=folder, **{**SEARCH, **GD, **settings})
    assert ticket.path is not None
    return RunDirectory(ticket.path.parent.parent)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    return searched(tmp_path_factory.mktemp("delivery"))


def assert_delivers(run: RunDirectory, seed: int, level: int) -> bool:
    """A level's ticket reaches what is reported of it; returns whether it is of an earlier step than the last."""
    replicate, ticket = read_replicate(run, seed, level), Ticket.load(run.level_path(seed, level))
    model = ticket.trained(make)
    assert accuracy(model, DATA.validation) == pytest.approx(replicate.validation, abs=1e-9)
    assert accuracy(model, DATA.test) == pytest.approx(replicate.test, abs=1e-9)
    assert replicate.early_stop is not None
    assert ticket.info["delivered"] == {"at": "early-stop", "step": replicate.early_stop.step}
    assert f"of early-stop step {replicate.early_stop.step}" in str(ticket)
    assert f"of early-stop step {replicate.early_stop.step}" in (replicate.path / "README.md").read_text()
    return ticket.last_params is not None


class TestEarlyStop:
    def test_one_by_one(self, run):
        earlier = [assert_delivers(run, 0, level) for level in range(3)]
        assert any(earlier)

    def test_stacked(self, tmp_path):
        stacked = searched(tmp_path, replicates=5, levels=1, batch_size=16)
        earlier = [assert_delivers(stacked, seed, level) for seed in range(5) for level in range(2)]
        assert any(earlier)

    @pytest.mark.parametrize("replicates", [1, 2])
    def test_evolved(self, replicates, tmp_path):
        settings: dict[str, Any] = {**SEARCH, **ES, "levels": 1}
        ticket = find_ticket(make, DATA, out=tmp_path, replicates=replicates, **settings)
        assert ticket.path is not None
        evolved = RunDirectory(ticket.path.parent.parent)
        earlier = [assert_delivers(evolved, seed, level) for seed in range(replicates) for level in range(2)]
        assert any(earlier)

    def test_the_next_mask_is_drawn_from_the_last_step(self, run):
        last = run.read_trained(0, 0).params
        assert any(not np.array_equal(last[name], value) for name, value in run.read_delivered(0, 0).items())
        mask = run.read_mask(0, 1)
        weights = [np.abs(last[name]) for name in mask]
        kept = np.concatenate([w[mask[name]] for w, name in zip(weights, mask, strict=True)])
        gone = np.concatenate([w[~mask[name]] for w, name in zip(weights, mask, strict=True)])
        assert kept.min() >= gone.max()

    def test_fine_tuning_goes_on_from_the_last_step(self, tmp_path):
        tuned = searched(tmp_path, rewind="none", levels=1)
        assert_same_arrays(tuned.read_rewound(0, 1), tuned.read_trained(0, 0).params)

    def test_the_masks_are_those_of_a_search_that_reports_the_end(self, run, tmp_path):
        final = searched(tmp_path, measure_at="final")
        for level in range(3):
            assert_same_arrays(dict(final.read_mask(0, level)), dict(run.read_mask(0, level)))
            assert_same_arrays(final.read_trained(0, level).params, run.read_trained(0, level).params)
        assert not list(final.path.glob("**/last.safetensors"))

    def test_controls_deliver_what_they_report(self, run):
        (ablated,) = ablate(run.path, "random-mask", levels=[1], model=make, data=DATA)
        control = ablated.levels[0].replicates[0]
        model = Ticket.load(control.path).trained(make)
        assert accuracy(model, DATA.validation) == pytest.approx(control.validation, abs=1e-9)

    def test_everything_that_looks_at_a_ticket_sees_the_delivered_weights(self, run):
        replicates = [read_replicate(run, 0, level) for level in (0, 1)]
        ticket = Ticket.load(replicates[1].path)
        sparse = ticket.sparse(make, X[180:])
        assert accuracy(sparse, DATA.test) == pytest.approx(replicates[1].test, abs=1e-9)
        exported = ticket_network(ticket, make, DATA, "trained", 8, asked="a test runs").model
        assert accuracy(exported, DATA.test) == pytest.approx(replicates[1].test, abs=1e-9)
        assert_same_arrays(study(run.path, make, DATA).trained(0, 1), dict(ticket.trained_params or {}))
        (pair,) = connect([r.path for r in replicates], make, DATA, points=2, parts=["test"]).pairs
        assert pair.line.curves["test"].metric == pytest.approx([replicate.test for replicate in replicates], abs=1e-9)

    def test_saved_elsewhere_it_is_the_same_ticket(self, run, tmp_path):
        ticket = next(
            t for t in (Ticket.load(run.level_path(0, level)) for level in range(3)) if t.last_params is not None
        )
        copy = Ticket.load(ticket.save(tmp_path / "copy").path or "")
        for name in ("trained_params", "last_params"):
            assert_same_arrays(getattr(copy, name), getattr(ticket, name))
        dataclasses.replace(ticket, last_params=None).save(tmp_path / "copy")
        assert Ticket.load(tmp_path / "copy").last_params is None

    def test_a_ticket_from_before_says_what_it_holds(self, run, tmp_path):
        ticket = Ticket.load(run.level_path(0, 1))
        info = {key: value for key, value in ticket.info.items() if key != "delivered"}
        dataclasses.replace(ticket, info=info, last_params=None).save(tmp_path / "old")
        assert "of the last step, and the numbers are of the early-stop step" in str(Ticket.load(tmp_path / "old"))

    def test_with_masks_that_move_it_is_refused(self, tmp_path):
        with pytest.raises(BadValue, match="use measure_at 'final'"):
            searched(tmp_path, moves="rigl", sparsity=0.5, levels=None)


def test_at_the_end_the_last_step_is_delivered(tmp_path):
    final = searched(tmp_path, measure_at="final", levels=1)
    record = json.loads((final.level_path(0, 1) / "config.json").read_text())
    assert record["delivered"] == {"at": "final", "step": 60}
    model = Ticket.load(final.level_path(0, 1)).trained(make)
    assert accuracy(model, DATA.test) == pytest.approx(record["test"], abs=1e-9)


def test_a_metric_that_is_no_number_where_it_is_reported_ends_the_training():
    def point(step: int, loss: float, value: float) -> Evaluation:
        return Evaluation(step, loss, loss, value, None, None)

    last, best = {"w": np.ones(1)}, {"w": np.zeros(1)}
    trained = Trained(last, [point(1, 0.5, 0.7), point(2, 0.9, float("nan"))], best=best)
    early, final = report(trained, "early-stop"), report(trained, "final")
    assert (early.trained.diverged, early.validation, early.weights) == (None, 0.7, best)
    assert final.trained.diverged == "the metric is not finite on the validation part at step 2: nan"
    assert final.delivered is None


class TestInputsThatAreNoNumbers:
    """A `DataLoader` is used as given; what its NaN make of the numbers is said."""

    def loader(self, x, broken: int | None = None):
        x = torch.from_numpy(x[0].copy()), torch.from_numpy(x[1].copy())
        if broken is not None:
            x[0][broken, 0] = float("nan")
        return DataLoader(TensorDataset(*x), 10)

    def test_in_the_test_part_no_test_metric_is_reported(self, tmp_path):
        data = Data(train=blobs(40), validation=blobs(20, seed=1), test=self.loader(blobs(20, seed=2), broken=3))
        with pytest.warns(UserWarning, match="the loss on the test part is not a number at step 6"):
            found = search(tmp_path, lambda seed: torch.nn.Linear(6, 3), data, steps=6, eval_every=3)
        replicate = found.levels[1].replicates[0]
        assert replicate.test is None and replicate.final_test is None and replicate.diverged is None
        assert replicate.early_stop is not None and replicate.early_stop.test is None

    def test_in_the_validation_part_the_training_ends_and_names_it(self, tmp_path):
        data = Data(train=blobs(40), validation=self.loader(blobs(20, seed=1), broken=0))
        with pytest.raises(Diverged, match="the loss on the validation part is not finite at step 3"):
            search(tmp_path, lambda seed: torch.nn.Linear(6, 3), data, steps=6, eval_every=3)
