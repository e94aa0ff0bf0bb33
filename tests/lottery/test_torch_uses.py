"""How networks use their tensors, found by running them: order, what makes the outputs, axes of a module's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lottery.networks.uses import torch_uses
from pruning.torch_modules import prunable


class HeadFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem, self.body = nn.Linear(4, 3), nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu_(self.body(torch.relu(self.stem(x)))))


class TwoHeads(HeadFirst):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        hidden = torch.relu(self.body(torch.relu(self.stem(x))))
        return {"labels": self.head(hidden), "scores": self.other(hidden), "hidden": hidden}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.rnn = nn.Linear(5, 2), nn.LSTM(3, 5, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


class InPlace(HeadFirst):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = torch.zeros(len(x), 3)
        outputs[:, :] = super().forward(x)
        return outputs


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Parameter(torch.ones(2, 4)), nn.Parameter(torch.ones(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.first) @ self.second.T


class Tied(nn.Module):
    """The table of tokens makes the outputs: it is no prunable tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(7, 4), nn.Linear(4, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(self.table(tokens))) @ self.table.weight.T


def matrices(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]


@pytest.mark.parametrize(
    ("model", "shape", "outputs", "order"),
    [
        (HeadFirst(), (2, 6), {"head.weight"}, ["stem.weight", "body.weight", "head.weight"]),
        (InPlace(), (2, 6), {"head.weight"}, ["stem.weight", "body.weight", "head.weight"]),
        (
            TwoHeads(),
            (2, 6),
            {"head.weight", "other.weight", "body.weight"},
            ["stem.weight", "body.weight", "head.weight", "other.weight"],
        ),
        (Recurrent(), (2, 4, 3), {"out.weight"}, None),
        (Recurrent().rnn, (2, 4, 3), {"weight_ih_l1", "weight_hh_l1", "weight_ih_l0", "weight_hh_l0"}, None),
        (Attention(), (2, 3, 4), {"attention.out_proj.weight"}, None),
        (Own(), (2, 3), {"second"}, ["first", "second"]),
    ],
    ids=["head first", "in place", "two heads", "recurrent", "states", "attention", "own"],
)
def test_the_order_in_which_layers_run(model, shape, outputs, order):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    uses = torch_uses(model, matrices(model), torch.randn(shape))
    assert uses.outputs == outputs and not uses.reason
    assert sorted(uses.order) == sorted(matrices(model))
    assert order is None or list(uses.order) == order
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_outputs_that_the_loss_does_not_look_at_do_not_count():
    uses = torch_uses(TwoHeads(), matrices(TwoHeads()), torch.randn(2, 6), lambda out, y: out["labels"].sum() + y, 1.0)
    assert uses.outputs == {"head.weight"}
    rnn = Recurrent().rnn
    assert torch_uses(rnn, matrices(rnn), torch.randn(2, 4, 3), lambda out, _: out[0].mean()).outputs == {
        "weight_ih_l1",
        "weight_hh_l1",
    }


def test_a_tied_table_makes_the_outputs():
    uses = torch_uses(Tied(), matrices(Tied()), torch.tensor([[1, 2]]))
    assert uses.outputs == {"table.weight"}
    assert not uses.outputs & set(prunable(Tied()))


def test_axes_of_a_modules_own_matrices_are_those_of_their_products():
    axes = torch_uses(Own(), ["first", "second"], torch.randn(2, 3)).axes
    assert (axes["first"].outputs, axes["first"].inputs) == ((1,), (0,))
    assert (axes["second"].outputs, axes["second"].inputs) == ((0,), (1,))


def test_a_network_that_cannot_be_run_is_told():
    assert "RuntimeError" in torch_uses(HeadFirst(), matrices(HeadFirst()), torch.randn(2, 5)).reason
    constant = nn.Module()
    constant.forward = lambda x: torch.zeros(2)
    constant.weight = nn.Parameter(torch.ones(2, 2))
    assert "do not depend" in torch_uses(constant, ["weight"], torch.ones(2)).reason
