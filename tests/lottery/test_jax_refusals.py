"""Where only PyTorch will do, a JAX model is refused in one line that says what works, and that works."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import torch
from torch import nn

from lottery import Data, Ticket, find_ticket
from lottery.bench.tickets import sparse_reports
from lottery.exports.exporting import export
from lottery.runs.given import Given
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.search.probes import PROBES
from lottery.studies.analyses import ANALYSES, IN_JAX, analyze
from lottery.studies.connection.tickets import connect
from lottery.studies.instability.running import instability
from pruning.criteria import CRITERIA
from pruning.errors import BadValue
from pruning.watch import Silent
from tests.lottery.helpers import blobs

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY: dict[str, Any] = {"trainer": "es", "generations": 2, "population": 4, "batch_size": 32, "levels": 1}
TINY |= {"tolerance": 1.0, "eval_every": 1, "quiet": True}
_JAX = "PyTorch modules, and this (model|ticket's model) is in JAX"
_BY_WEIGHTS = [entry.name for entry in CRITERIA if not any(need in PROBES for need in entry.value.needs)]


def equinox(key: Any) -> eqx.nn.MLP:
    return eqx.nn.MLP(6, 3, 8, 1, key=key)


class Twin(nn.Module):
    """What `equinox` is, in PyTorch, with the same names and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1](torch.relu(self.layers[0](x)))


@pytest.fixture(scope="module")
def ticket(tmp_path_factory) -> Ticket:
    return find_ticket(equinox, DATA, out=tmp_path_factory.mktemp("runs"), replicates=2, **TINY)


@pytest.fixture(scope="module")
def run(ticket) -> Any:
    return ticket.search.run


def refused(call: Any, says: str) -> str:
    with pytest.raises(BadValue, match=_JAX) as found:
        call()
    line = str(found.value)
    assert "\n" not in line and says in line
    return line


def levels(run: Any) -> list[Any]:
    return [run / "seed-0" / f"level-0{number}" for number in (0, 1)]


@pytest.mark.parametrize("name", [entry.name for entry in ANALYSES])
def test_an_analysis_works_or_names_those_that_do(run, name):
    try:
        assert analyze(run, name, equinox, DATA).text
    except BadValue:
        assert name not in IN_JAX
        refused(lambda: analyze(run, name, equinox, DATA), "early-stop-speedup, layer-density, mask-overlap")


def test_the_line_between_two_tickets(run):
    line = refused(lambda: connect(levels(run), equinox, DATA), "jax.tree.map")
    assert line.startswith("lottery connect measures")
    (pair,) = connect(levels(run), Twin(), DATA, points=2, parts=["test"]).pairs
    reported = [Ticket.load(level).info["test"] for level in levels(run)]
    assert pair.line.curves["test"].metric == pytest.approx(reported)


def test_copies_of_one_ticket(run):
    refused(lambda: instability(run, equinox, DATA), "train_ticket(ticket, model, data")


@pytest.mark.parametrize("to", ["csr", "onnx"])
def test_an_export(ticket, tmp_path, to):
    for model in (equinox, None):
        says = refused(lambda model=model: export(ticket, to, model, DATA, out=tmp_path / to), "same names")
        assert says.startswith(f"export {to!r} writes")
    assert export(ticket, to, Twin(), DATA, out=tmp_path / to).difference < 1e-5


def test_the_sparse_forward_pass(ticket):
    with pytest.raises(BadValue, match="this model is in JAX, which runs sparse while it is evolved.*same names"):
        ticket.sparse(equinox, DATA.validation[0])
    x, model = torch.from_numpy(DATA.validation[0]), ticket.trained(equinox)
    found = ticket.sparse(Twin(), x)(x).detach().numpy()
    np.testing.assert_allclose(found, jax.vmap(model)(DATA.validation[0]), rtol=1e-4, atol=1e-5)
    refused(lambda: list(sparse_reports(ticket, equinox, DATA, [8])), "same names")
    assert [report.batch[0] for report in sparse_reports(ticket, Twin(), DATA, [8])] == [8]


@pytest.mark.parametrize("name", [entry.name for entry in CRITERIA])
def test_a_criterion_works_or_says_which_do(name):
    settings = {key: value for key, value in TINY.items() if key != "quiet"} | {"criterion": name}
    if name in _BY_WEIGHTS:
        assert prepare_search(Request(Given(equinox, DATA), settings), Silent()).plan.drawing.criterion.name == name
        return
    line = refused(lambda: prepare_search(Request(Given(equinox, DATA), settings), Silent()), f"criterion {name!r}")
    assert all(other in _BY_WEIGHTS for other in ("magnitude", "movement", "random", "snr") if other in line)


def test_ways_of_training(tmp_path):
    by_hand = "pruning.pytrees.apply_mask after each step"
    refused(lambda: find_ticket(equinox, DATA, out=tmp_path, quiet=True), by_hand)
    refused(lambda: find_ticket(equinox, DATA, train=lambda model, mask: model, out=tmp_path, quiet=True), by_hand)
    refused(lambda: find_ticket(equinox, DATA, data_diet=0.5, out=tmp_path, **TINY), "leave data_diet out")
