"""What a caller's model, loss or criterion raises while it is looked at is one line, with file and line of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery import find_ticket
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.objectives.objective import objective_for
from lottery.state.tensors import state_of
from lottery.studies.analyses import ANALYSES, analyze
from lottery.studies.measures.connectivity import refresh_statistics
from lottery.studies.measures.curvature import surface, top_eigenvalues
from lottery.studies.view import TorchView
from pruning.errors import LotteryError, RunError
from pruning.mask import Mask
from pruning.torch_modules import prunable
from tests.lottery.helpers import blobs
from tests.lottery.test_probes import job_of, prober

DATA = Data(train=blobs(48), validation=blobs(24, seed=1))
HERE = __file__


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def one_line(error: pytest.ExceptionInfo[LotteryError], place: bool = True) -> bool:
    return "\n" not in str(error.value) and (f"{HERE}, line" in str(error.value)) is place


def search(folder: Path, criterion: Any, levels: int = 2) -> Any:
    return find_ticket(tiny, DATA, criterion=criterion, levels=levels, steps=4, tolerance=1.0, out=folder, quiet=True)


@pytest.mark.parametrize("need", ["gradients", "hessian_gradients", "hessian_diagonal", "fisher", "edge-popup"])
def test_a_loss_that_fails_under_a_probe(need):
    def broken(outputs: Any, targets: Any) -> Any:
        raise KeyError("weights")

    with pytest.raises(LotteryError, match="weights") as caught:
        prober(tiny(), loss=broken).look(job_of(tiny()), 0.5, frozenset({need}))
    assert "\n" not in str(caught.value) and (need == "fisher" or one_line(caught))


def test_a_model_that_fails_under_a_probe():
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no forward today")

    with pytest.raises(RunError, match="looked at for 'input_norms', fails: ValueError: no forward") as caught:
        prober(Broken()).look(job_of(Broken()), 0.5, frozenset({"input_norms"}))
    assert one_line(caught)


def test_a_criterion_that_fails_before_anything_is_trained(tmp_path):
    def broken(trained: Any, job: Any) -> Any:
        return {}["no such key"]

    with pytest.raises(LotteryError, match="criterion 'broken' cannot score this model .KeyError") as caught:
        search(tmp_path, broken)
    assert one_line(caught)


class Turns:
    """A criterion that is good at first, before anything is trained, and wrong at a later level."""

    __name__ = "turns"

    def __init__(self, wrong: Any, after: int) -> None:
        self.wrong, self.after, self.calls = wrong, after, 0

    def __call__(self, trained: Any, job: Any) -> Any:
        self.calls += 1
        good = {name: np.abs(trained.params[name]) for name in job.mask}
        return self.wrong(good) if self.calls > self.after else good


WRONG = {
    "nan": (lambda good: {name: s * np.nan for name, s in good.items()}, "contain NaN"),
    "shape": (lambda good: {name: s[:1] for name, s in good.items()}, "expected shape"),
    "missing": (lambda good: {}, "got none"),
    "none": (lambda good: None, "not NoneType"),
    "list": (lambda good: list(good.values()), "not list"),
    "text": (lambda good: {name: np.full(s.shape, "x") for name, s in good.items()}, "are no numbers"),
    "complex": (lambda good: {name: s * 1j for name, s in good.items()}, "complex numbers"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("after", [0, 2])
def test_wrong_scores_at_any_level_are_one_line(tmp_path, kind, after):
    wrong, message = WRONG[kind]
    with pytest.raises(LotteryError, match=message) as caught:
        search(tmp_path, Turns(wrong, after), levels=3)
    assert one_line(caught, place=False)


def test_an_analysis_of_a_model_that_fails_by_now(tmp_path):
    class Model(nn.Module):
        broken = False

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if Model.broken:
                raise OSError("the lookup table is gone")
            return self.fc2(torch.relu(self.fc1(x)))

    ticket = find_ticket(Model(), DATA, levels=1, steps=4, tolerance=1.0, out=tmp_path, quiet=True)
    assert ticket.search is not None
    Model.broken = True
    for name in ("cka", "sharpness", "connectivity", "filter-energy"):
        assert name in ANALYSES
        with pytest.raises(LotteryError, match="the lookup table is gone") as caught:
            analyze(ticket.search.run, name, Model(), DATA)
        assert "\n" not in str(caught.value), name


def test_curvature_and_statistics_say_so_too():
    def broken(outputs: Any, targets: Any) -> Any:
        raise ZeroDivisionError("no class")

    view = TorchView(tiny(), prepare(DATA, 0), objective_for(torch.tensor([1]), broken), torch.device("cpu"))
    where = surface(view, state_of(tiny()), Mask.dense(prunable(tiny())), examples=8)
    with pytest.raises(RunError, match="no class") as caught:
        top_eigenvalues(where)
    assert one_line(caught)

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("not in training mode")

    with pytest.raises(RunError, match="the model on training examples fails: ValueError") as caught:
        refresh_statistics(Fails().eval(), view, ["norm"], 8)
    assert one_line(caught)


def test_what_is_fine_stays_fine(tmp_path):
    ticket = search(tmp_path, Turns(None, 100))
    assert ticket.search.levels[2].alive
