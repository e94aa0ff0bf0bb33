"""What is prunable of a network, tensor by tensor: in Python and on the command line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from lottery import find_ticket, layers
from lottery.cli.app import run
from pruning.errors import BadValue, Untrusted

DATA = (np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32), np.arange(60) % 3)


class Several(nn.Module):
    """Weights of many kinds of use, and a head that is tied to the table of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.rnn = nn.Embedding(5, 6), nn.LayerNorm(6), nn.LSTM(6, 4, batch_first=True)
        self.head, self.frozen = nn.Linear(6, 5, bias=False), nn.Linear(4, 6).requires_grad_(False)
        self.head.weight = self.table.weight
        self.places, self.mixing = nn.Parameter(torch.zeros(1, 6, 6)), nn.Parameter(torch.eye(6))
        self.turned = orthogonal(nn.Linear(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.table(x.sign().long() + 1) + self.places
        return self.head(self.frozen(self.rnn(self.turned(self.norm(tokens)) @ self.mixing)[0][:, -1]))


def test_every_tensor_has_its_axes_its_shares_and_why_it_is_not_prunable():
    found = {row.name: row for row in layers(Several(), (DATA[0], DATA[1].astype(np.int64))).rows}
    assert {name for name, row in found.items() if row.prunable} == {"mixing", "rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    assert (found["mixing"].outputs, found["mixing"].inputs) == ((1,), (0,))
    assert (found["rnn.weight_ih_l0"].outputs, found["rnn.weight_ih_l0"].inputs) == ((0,), (1,))
    assert found["table.weight"].why == "of an embedding or a normalization (Embedding), tied to head.weight"
    assert found["table.weight"].tied == ("head.weight",)
    assert found["frozen.weight"].why == "frozen (no requires_grad)"
    assert found["places"].why == "added to or joined with activations"
    assert found["norm.weight"].why.endswith("(LayerNorm)")
    assert "a 0 in it is no 0 in" in found["turned.parametrizations.weight.original"].why
    assert sum(row.parameters for row in found.values()) == pytest.approx(1)
    shares = [row.multiply_adds for row in found.values()]
    assert all(share is not None for share in shares) and 0 < sum(filter(None, shares)) <= 1


def test_without_data_or_a_pass_kinds_decide_and_the_work_is_not_known():
    for found in (layers(Several()), layers(nn.Sequential(nn.Linear(4, 3)), DATA)):
        assert all(row.multiply_adds is None for row in found.rows)
        assert "could not be followed" in str(found.coverage)
    assert [row.prunable for row in layers(nn.Linear(4, 3)).rows] == [True, False]


def test_patterns_are_those_of_a_search():
    rows = layers(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), DATA, skip=["0.*"]).rows
    assert [(row.name, row.why) for row in rows if row.why.startswith("named")] == [
        ("0.weight", "named in `skip`"),
        ("0.bias", "named in `skip`"),
    ]


def test_the_command_line_prints_rows(capsys, tmp_path, monkeypatch):
    assert run(["layers", "mlp", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows if row["prunable"]] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert run(["layers", "mpl"]) == 2
    assert "did you mean 'mlp'" in capsys.readouterr().err
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(["layers", "nets:make"]) == 0
    assert "masks cover 98.5 % of the parameters" in capsys.readouterr().out


def test_a_run_and_a_ticket_show_the_network_that_was_searched(tmp_path):
    from lottery.studies.layers import stored_layers

    settings: dict[str, Any] = {"levels": 1, "steps": 5, "tolerance": 1.0, "quiet": True, "out": tmp_path}
    ticket = find_ticket("mlp", "digits", skip=["fc2.*"], **settings)
    assert ticket.path is not None
    for path in (ticket.path, ticket.path.parent.parent):
        assert [row.name for row in stored_layers(path).rows if row.prunable] == ["fc1.weight", "fc3.weight"]
    other = find_ticket(nn.Sequential(nn.Linear(6, 3)), DATA, **settings)
    assert other.path is not None
    with pytest.raises(BadValue, match="its model has no name"):
        stored_layers(other.path)


def test_code_that_only_a_directory_names_is_not_run(tmp_path, monkeypatch):
    from lottery.studies.layers import stored_layers

    (tmp_path / "theirs.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ticket = find_ticket("theirs:make", "digits", levels=1, steps=5, tolerance=1.0, quiet=True, out=tmp_path / "runs")
    assert ticket.path is not None
    with pytest.raises(Untrusted):
        stored_layers(ticket.path)
    assert stored_layers(ticket.path, trust=True).rows[0].prunable
