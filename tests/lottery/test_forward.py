"""`forward=`: the caller's own way to hand a batch to the model, wherever a model is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Ticket, find_ticket
from lottery.exports.exporting import export
from lottery.studies.ablation.running import ablate
from lottery.studies.analyses import analyze
from lottery.studies.connection.tickets import connect
from pruning.errors import BadValue, ConfigMismatch
from tests.lottery.helpers import blobs

X, Y = (torch.from_numpy(array) for array in blobs(60))
Z = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
BOTH = pytest.mark.parametrize("how", [{"steps": 6}, {"trainer": "es", "generations": 3, "population": 6}])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, z):
        return self.last(torch.relu(self.first(x + z)))


def triples() -> DataLoader:
    return DataLoader(TensorDataset(X, Z, Y), batch_size=10)


def on_the_first_two(model, batch):
    return model(batch[0], batch[1])


def on_the_third(outputs, batch):
    return F.cross_entropy(outputs, batch[2])


def found(out, data: Any = None, **changes: Any) -> Ticket:
    given = {"forward": on_the_first_two, "loss": on_the_third, "levels": 1, "tolerance": 9.0, "quiet": True}
    return find_ticket(Two(), triples() if data is None else data, out=out, **{**given, **changes})


@BOTH
def test_it_gets_the_batch_as_the_loader_gives_it_and_the_loss_the_whole_batch(how, tmp_path):
    assert found(tmp_path, **how).info["metric"]["name"] == "loss"


@pytest.mark.parametrize("data", [(X, Y), DataLoader(TensorDataset(X, Y), 10)], ids=["arrays", "loader"])
def test_of_pairs_the_labels_still_go_to_loss_and_metric(data, tmp_path):
    ticket = found(tmp_path, data, forward=lambda model, batch: model(batch[0], -batch[0]), loss=None, steps=4)
    assert ticket.info["metric"]["name"] == "accuracy"


@pytest.mark.parametrize("criterion", ["snip", "grasp", "fisher", "wanda", "taylor-second", "edge-popup"])
def test_probes_call_the_model_by_it(criterion, tmp_path):
    assert found(tmp_path, criterion=criterion, steps=3, score_steps=2, score_examples=12).density < 1


def test_it_is_part_of_a_runs_identity(tmp_path):
    paths = {found(tmp_path, steps=2).path, found(tmp_path, steps=2, forward=lambda m, b: m(b[1], b[0])).path}
    assert len(paths) == 2
    assert found(tmp_path, steps=2).path in paths


def test_who_opens_a_run_again_gives_it_again(tmp_path):
    ticket = found(tmp_path, steps=4)
    assert ticket.path is not None
    run = ticket.path.parent.parent
    again: dict[str, Any] = {"model": Two(), "data": triples(), "loss": on_the_third}
    for other in (None, lambda model, batch: model(batch[1], batch[0])):
        with pytest.raises(ConfigMismatch, match="forward"):
            ablate(run, "random-mask", **again, forward=other)
    again["forward"] = on_the_first_two
    assert ablate(run, "random-mask", **again)
    assert analyze(run, "sharpness", **again)
    exported = export(ticket, "csr", Two(), triples(), forward=on_the_first_two, out=tmp_path / "csr")
    assert exported.difference == 0
    levels = [run / "seed-0" / f"level-0{number}" for number in (0, 1)]
    assert connect(levels, **again, points=3).pairs


def test_a_jax_model_takes_none():
    pair = ({"w": X.numpy()}, lambda params, x: x)
    with pytest.raises(BadValue, match="this model is in JAX: let its `apply` take the batch"):
        find_ticket(pair, (X, Y), trainer="es", forward=lambda model, batch: model(batch[0]), quiet=True)


def test_an_environment_takes_none():
    with pytest.raises(BadValue, match="leave forward out"):
        find_ticket(data="gymnax:CartPole-v1", trainer="es", forward=lambda model, batch: model(batch))
