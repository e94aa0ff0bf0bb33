"""Which function the results of a PyTorch weight go through, what feeds it, and how many edges meet behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery.networks.models import MODELS
from lottery.networks.uses import torch_uses
from pruning.starts.torch_tensors import torch_tensors
from pruning.starts.weight import Place
from pruning.uses.uses import Uses

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class Made(nn.Module):
    """A network of some modules, and a function of them."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any], **members: Any) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def followed(model: nn.Module, inputs: torch.Tensor = X) -> Uses:
    uses = torch_uses(model, [name for name, each in model.named_parameters() if each.ndim > 1], inputs)
    assert not uses.reason
    return uses


def between(function: Callable[[torch.Tensor], torch.Tensor]) -> str | None:
    """Return what is found of a function between two layers."""
    network = Made(lambda m, x: m.second(function(m.first(x))), first=nn.Linear(3, 4), second=nn.Linear(4, 2))
    uses = followed(network)
    assert uses.activations["second.weight"] == "linear"
    return uses.activations.get("first.weight")


MODULES = {
    "linear": nn.Identity(),
    "relu": nn.ReLU(inplace=True),
    "leaky_relu": nn.LeakyReLU(),
    "leaky_relu(0.2)": nn.LeakyReLU(0.2),
    "leaky_relu(0.25)": nn.PReLU(),
    "relu6": nn.ReLU6(),
    "elu": nn.ELU(),
    "elu(0.5)": nn.ELU(0.5),
    "selu": nn.SELU(),
    "celu(2)": nn.CELU(2.0),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(inplace=True),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "softplus(2)": nn.Softplus(2),
    "sigmoid": nn.Sigmoid(),
    "logsigmoid": nn.LogSigmoid(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "softsign": nn.Softsign(),
    "hardtanh": nn.Hardtanh(),
    "hardtanh(-2, 3)": nn.Hardtanh(-2, 3),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
    "softshrink": nn.Softshrink(),
    "hardshrink": nn.Hardshrink(),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_between_two_layers(name):
    assert between(MODULES[name]) == name


BY_HAND = {
    "relu by clamping": ("relu", lambda z: z.clamp(min=0)),
    "relu by a maximum": ("relu", lambda z: torch.maximum(z, torch.zeros_like(z))),
    "relu by a choice": ("relu", lambda z: torch.where(z > 0, z, torch.zeros_like(z))),
    "relu by a mask": ("relu", lambda z: z * (z > 0).float()),
    "relu, in place": ("relu", lambda z: z.relu_()),
    "squared relu": ("relu_squared", lambda z: F.relu(z) ** 2),
    "silu": ("silu", lambda z: z * torch.sigmoid(z)),
    "gelu": ("gelu", lambda z: z * 0.5 * (1.0 + torch.erf(z / 2**0.5))),
    "gelu by tanh": ("gelu_tanh", lambda z: 0.5 * z * (1 + torch.tanh(0.7978845608 * (z + 0.044715 * z**3)))),
    "mish": ("mish", lambda z: z * torch.tanh(F.softplus(z))),
    "gaussian": ("gaussian", lambda z: torch.exp(-(z**2) / 2)),
    "sine": ("sin", torch.sin),
    "the gate of another": ("sigmoid", lambda z: 1 - torch.sigmoid(z)),
    "softmax": ("linear", lambda z: z.softmax(-1)),
    "softmax by hand": (
        "linear",
        lambda z: (e := (z - z.max(-1, keepdim=True).values).exp()) / e.sum(-1, keepdim=True),
    ),
    "a norm by hand": ("relu", lambda z: F.relu((z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + 1).sqrt())),
    "another norm": ("tanh", lambda z: torch.tanh(F.normalize(z) * torch.randn(4) + torch.randn(4))),
    "dropout": ("relu", lambda z: F.dropout(F.relu(z), 0.5)),
    "shapes": ("tanh", lambda z: torch.tanh(z.t().reshape(4, 5, 1)).flatten(1).t()),
}


@pytest.mark.parametrize("how", BY_HAND)
def test_a_function_written_by_hand_is_told_by_its_numbers(how):
    name, function = BY_HAND[how]
    assert between(function) == name


NOT_KNOWN = {
    "no known function": lambda z: z**5,
    "another scale inside": lambda z: torch.sin(30 * z),
    "another scale outside": lambda z: 1.7159 * torch.tanh(z),
    "two functions": lambda z: torch.relu(z) + torch.tanh(z[:, [1, 0, 2, 3]]),
    "with and without": lambda z: torch.cat([z, torch.relu(z)], 1)[:, 2:6],
    "gates of one tensor": lambda z: (z[:, :2].sigmoid() * z[:, 2:].tanh()).repeat(1, 2),
    "no operation element by element": lambda z: z.cumprod(-1),
    "a slope for each unit": lambda z: F.prelu(z, torch.arange(4.0)),
}


@pytest.mark.parametrize("how", NOT_KNOWN)
def test_what_is_not_found_is_not_there(how):
    assert between(NOT_KNOWN[how]) is None


def test_convolution_norm_function_and_pooling():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(2, 4, 1), nn.AvgPool2d(2), nn.GroupNorm(2, 4), nn.SiLU(),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2), nn.LogSoftmax(-1),
    )  # fmt: skip
    uses = followed(network, torch.randn(4, 1, 6, 6))
    assert uses.activations == {
        "0.weight": "relu",
        "4.weight": "silu",
        "10.weight": "linear",
        "12.weight": "linear",
    }
    assert uses.feeds == {
        "0.weight": (),
        "4.weight": ("0.weight",),
        "10.weight": ("4.weight",),
        "12.weight": ("10.weight",),
    }
    assert set(uses.in_degrees.values()) == {1}


def test_a_residual_block_has_two_edges_behind_its_last_convolution():
    uses = followed(MODELS["resnet-20"].value((3, 8, 8), 10), torch.randn(4, 3, 8, 8))
    *body, head = uses.order
    assert {uses.activations[name] for name in body} == {"relu"} and uses.activations[head] == "linear"
    assert sorted(uses.in_degrees.values()) == [1] * 11 + [2] * 11  # nine blocks, two of them with a projection beside


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.beside, self.head = (nn.Linear(3, 3) for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = x + self.two(torch.relu(self.one(x)))
        return self.head(torch.tanh(y + 0.1 * self.beside(y)))


def test_sums_that_go_elsewhere_too_are_vertices_of_their_own():
    uses = followed(Block())
    degrees = {"stem": 1, "one": 1, "two": 2, "beside": 2, "head": 1}
    assert uses.in_degrees == {f"{name}.weight": degree for name, degree in degrees.items()}
    assert uses.feeds["beside.weight"] == ("stem.weight", "two.weight")
    assert "two.weight" not in uses.activations  # it reaches a product as it is, and tanh
    assert uses.activations["beside.weight"] == "tanh"


@pytest.mark.parametrize(("act", "name"), [(torch.tanh, "tanh"), (lambda z: z, "linear")])
def test_the_graph_with_three_edges_into_one_vertex(act, name):
    # 0→1, {0,1}→2, {0,1,2}→3→4
    def forward(m, x):
        one = act(m.w01(x))
        two = act(m.w02(x) + m.w12(one))
        return m.w34(act(m.w03(x) + m.w13(one) + m.w23(two)))

    edges = ("w01", "w02", "w12", "w03", "w13", "w23", "w34")
    uses = followed(Made(forward, **{edge: nn.Linear(3, 3) for edge in edges}))
    assert uses.in_degrees == {
        f"{edge}.weight": degree for edge, degree in zip(edges, (1, 2, 2, 3, 3, 3, 1), strict=True)
    }
    assert uses.feeds["w34.weight"] == ("w03.weight", "w13.weight", "w23.weight")
    assert uses.feeds["w23.weight"] == ("w02.weight", "w12.weight")
    assert uses.activations == {f"{edge}.weight": name for edge in edges} | {"w34.weight": "linear"}


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_transformer_layer(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, activation="gelu")
    uses = followed(layer, torch.randn(2, 4, 8))
    assert uses.activations == {
        "self_attn.in_proj_weight": "linear",
        "self_attn.out_proj.weight": "linear",
        "linear1.weight": "gelu",
        "linear2.weight": "linear",
    }
    assert uses.in_degrees == {
        "self_attn.in_proj_weight": 1,
        "self_attn.out_proj.weight": 2,
        "linear1.weight": 1,
        "linear2.weight": 2,
    }
    assert uses.feeds["self_attn.out_proj.weight"] == ("self_attn.in_proj_weight",)


def test_a_gated_layer_multiplies_two_results():
    network = Made(
        lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)), gate=nn.Linear(3, 4), up=nn.Linear(3, 4), down=nn.Linear(4, 3)
    )
    assert followed(network).activations == {"gate.weight": "silu", "up.weight": "linear", "down.weight": "linear"}


def last(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.head(m.core(x)[0][:, -1])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_plain_recurrent_layer(nonlinearity):
    core = nn.RNN(3, 5, num_layers=2, batch_first=True, nonlinearity=nonlinearity)
    uses = followed(Made(last, core=core, head=nn.Linear(5, 2)), torch.randn(2, 4, 3))
    inside = [f"core.weight_{kind}_l{layer}" for layer in range(2) for kind in ("ih", "hh")]
    assert uses.activations == dict.fromkeys(inside, nonlinearity) | {"head.weight": "linear"}
    assert all(uses.in_degrees[name] == 2 for name in inside)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_that_are_one_tensor_have_no_function_in_common(kind):
    uses = followed(Made(last, core=kind(3, 5, batch_first=True), head=nn.Linear(5, 2)), torch.randn(2, 4, 3))
    assert uses.activations == {"head.weight": "linear"}
    assert set(uses.feeds["head.weight"]) == {"core.weight_ih_l0", "core.weight_hh_l0"}


def test_each_gate_that_is_drawn_has_its_own_function():
    model = Made(last, core=nn.LSTM(3, 5, batch_first=True), head=nn.Linear(5, 2))
    drawn = {each.tensor.name: each.tensor for each in torch_tensors(model, {}, followed(model, torch.randn(2, 4, 3)))}
    gates = [weight.activation for weight in drawn["core.weight_hh_l0"].weights()]
    assert gates == ["sigmoid", "sigmoid", "tanh", "sigmoid"]  # input, forget, cell, output
    assert [weight.activation for weight in drawn["head.weight"].weights()] == ["linear"]


def test_what_is_drawn_knows_its_function_and_its_place():
    model = Block()
    weights = {t.tensor.name: t.tensor.weights()[0] for t in torch_tensors(model, {}, followed(model))}
    assert weights["one.weight"].activation == "relu" and weights["two.weight"].activation is None
    assert weights["beside.weight"].place == Place(3, ("stem.weight", "two.weight"), in_degree=2)
    assert weights["head.weight"].place == Place(4, ("stem.weight", "two.weight", "beside.weight"), last=True)


def test_an_embedding_feeds_and_is_followed_too():
    network = Made(
        lambda m, x: m.fc(torch.relu(m.table(x))).tanh() @ m.table.weight.t(),
        table=nn.Embedding(7, 3),
        fc=nn.Linear(3, 3),
    )
    uses = followed(network, torch.tensor([[1, 2], [3, 4]]))
    assert uses.activations == {"fc.weight": "tanh"}  # the table's rows go through relu, its products are the outputs
    assert uses.feeds["fc.weight"] == ("table.weight",)


def test_a_pass_that_fails_says_nothing():
    uses = torch_uses(nn.Linear(3, 2), ["weight"], torch.randn(2, 5))
    assert uses.reason and not uses.activations and not uses.feeds and not uses.in_degrees
