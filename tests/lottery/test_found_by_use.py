"""Which tensors multiply activations, whoever owns them and whatever lies between, and which axes they then have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lottery import find_ticket
from lottery.networks.sources.following import matrices
from lottery.networks.uses import torch_uses
from lottery.studies.ablation.running import ablate
from pruning.errors import BadValue
from pruning.torch_modules import prunable
from pruning.uses.uses import ADDED, COMPUTED, TABLE, Uses

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])


class Made(nn.Module):
    """A network of some tensors and modules, and a function of them."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any], **members: Any) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, nn.Parameter(member) if isinstance(member, torch.Tensor) else member)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def followed(model: nn.Module, inputs: Any = X) -> Uses:
    uses = torch_uses(model, matrices(model), inputs)
    assert not uses.reason
    return uses


COMPLEX = torch.randn(3, 4, dtype=torch.complex64)
FACTORS = {
    "transposed": (lambda m, x: x @ m.w.t(), (4, 3), (0,), (1,)),
    "cast and scaled": (lambda m, x: x.bfloat16() @ (m.w.to(torch.bfloat16) * 0.1), (3, 4), (1,), (0,)),
    "experts one by one": (lambda m, x: F.linear(x, m.w[0]) + F.linear(x, m.w[1]), (2, 4, 3), (0, 1), (2,)),
    "experts unbound": (lambda m, x: sum(x @ each for each in m.w.unbind()), (2, 3, 4), (0, 2), (1,)),
    "experts at once": (lambda m, x: torch.einsum("bi,eio->beo", x, m.w), (2, 3, 4), (0, 2), (1,)),
    "experts in a batch": (lambda m, x: torch.bmm(x.expand(2, 5, 3), m.w), (2, 3, 4), (0, 2), (1,)),
    "heads": (lambda m, x: torch.einsum("bi,inh->bnh", x, m.w), (3, 2, 4), (1, 2), (0,)),
    "parts": (lambda m, x: torch.cat([x @ part.t() for part in m.w.chunk(2)], -1), (4, 3), (0,), (1,)),
    "kernel": (lambda m, x: F.conv1d(x[:, None], 2 * m.w), (4, 1, 3), (0, 1), ()),
    "chosen by a router": (
        lambda m, x: torch.einsum("bi,bio->bo", x, m.w[m.router(x).argmax(-1)]),
        (2, 3, 4),
        (0, 2),
        (1,),
    ),
    "as keys": (
        lambda m, x: F.scaled_dot_product_attention(x[:, None], m.w.expand(5, 4, 3), torch.ones(5, 4, 3)),
        (4, 3),
        (0,),
        (1,),
    ),
}


@pytest.mark.parametrize("how", FACTORS)
def test_a_factor_is_found_with_its_axes(how):
    function, shape, outputs, inputs = FACTORS[how]
    network = Made(function, w=torch.randn(shape), router=nn.Linear(3, 2))
    uses = followed(network)
    assert "w" in uses.factors
    assert (uses.axes["w"].outputs, uses.axes["w"].inputs) == (outputs, inputs)
    assert "w" in prunable(network, uses=uses)


def test_stacked_and_complex_weights_are_factors():
    both = followed(
        Made(
            lambda m, x: torch.einsum("bi,eoi->beo", x, torch.stack([m.a, m.b])),
            a=torch.randn(4, 3),
            b=torch.randn(4, 3),
        )
    )
    assert both.factors == {"a", "b"} and both.axes["b"].inputs == (1,)
    waves = followed(Made(lambda m, x: (x.to(torch.complex64) @ m.w).abs(), w=COMPLEX))
    halves = followed(
        Made(lambda m, x: (x.to(torch.complex64) @ torch.complex(m.re, m.im)).abs(), re=COMPLEX.real, im=COMPLEX.imag)
    )
    assert waves.factors == {"w"} and halves.factors == {"re", "im"}


NO_FACTORS = {
    "an embedding that is tied to the outputs": (lambda m, x: m.w[x] @ m.w.t(), TOKENS, TABLE),
    "positions": (lambda m, x: x + m.w, X, ADDED),
    "a token in front": (lambda m, x: torch.cat([m.w, x]), X, ADDED),
    "an exponential": (lambda m, x: x @ m.w.exp().t(), X, f"{COMPUTED} (exp)"),
    "a centred weight": (lambda m, x: x @ (m.w - m.w.mean()).t(), X, f"{COMPUTED} (sub)"),
    "one beside another": (lambda m, x: x @ (m.w + m.low @ m.rank).t(), X, f"{COMPUTED} (add)"),
    "a codebook": (
        lambda m, x: m.layer(m.w[(x @ m.w.t()).argmax(-1)]),
        X,
        TABLE,
    ),
    "nothing": (lambda m, x: x, X, "not used in a forward pass"),
}


@pytest.mark.parametrize("what", NO_FACTORS)
def test_what_is_no_factor_is_said_to_be_what_it_is(what):
    function, inputs, why = NO_FACTORS[what]
    members = {"w": torch.randn(5, 3), "low": torch.zeros(5, 1), "rank": torch.randn(1, 3), "layer": nn.Linear(3, 2)}
    network = Made(lambda m, x: (function(m, x), m.layer(X)), **members)
    uses = followed(network, inputs)
    assert uses.apart["w"] == why
    assert "w" not in prunable(network, uses=uses)


def test_the_work_of_products_is_shared_out():
    uses = followed(Made(lambda m, x: m.first(x) @ m.w @ x.t(), first=nn.Linear(3, 4), w=torch.randn(4, 3)))
    assert (uses.work, uses.total_work) == ({"first.weight": 60.0, "w": 60.0}, 195.0)


def small(kind: str) -> nn.Module:
    from transformers import GPT2Config, GPT2ForSequenceClassification, MixtralConfig, MixtralForSequenceClassification

    torch.manual_seed(0)
    if kind == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8, "num_labels": 2}
        return GPT2ForSequenceClassification(
            GPT2Config(vocab_size=9, **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        )
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_labels": 2,
    }
    return MixtralForSequenceClassification(
        MixtralConfig(vocab_size=9, **sizes, num_key_value_heads=1, num_local_experts=2, pad_token_id=0)
    )


@pytest.mark.parametrize(
    ("kind", "name", "outputs", "inputs"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn.weight", (1,), (0,)),
        ("mixtral", "model.layers.0.mlp.experts.down_proj", (0, 1), (2,)),
    ],
)
def test_layers_of_other_libraries_are_found(kind, name, outputs, inputs):
    model = small(kind)
    uses = followed(model, {"input_ids": TOKENS})
    found = prunable(model, uses=uses)
    assert name in found and (uses.axes[name].outputs, uses.axes[name].inputs) == (outputs, inputs)
    trained = {each for each, p in model.named_parameters() if p.ndim > 1}
    tables = {"transformer.wte.weight", "transformer.wpe.weight", "model.embed_tokens.weight"}
    assert set(found) == trained - tables


class Mixed(nn.Module):
    """Weights that no kind of layer tells, to be searched."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.normed, self.head = weight_norm(nn.Linear(6, 8)), nn.Linear(4, 3)
        self.experts, self.wave = (
            nn.Parameter(torch.randn(2, 8, 8) / 3),
            nn.Parameter(torch.randn(8, 4, dtype=COMPLEX.dtype) / 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.einsum("bi,eio->beo", torch.relu(self.normed(x)), self.experts).mean(1)
        return self.head((x.to(self.wave.dtype) @ self.wave).abs())


DATA = (np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32), np.arange(60) % 3)
NAMES = ["experts", "wave", "normed.parametrizations.weight.original1", "head.weight"]


def test_a_search_trains_delivers_and_controls_them(tmp_path):
    settings = {"levels": 2, "steps": 8, "tolerance": 1.0, "quiet": True, "out": tmp_path}
    ticket = find_ticket(Mixed, DATA, **settings)
    assert list(ticket.mask) == NAMES and ticket.trained_params is not None
    for params in (ticket.params, ticket.trained_params):
        values = ticket.mask.apply(dict(params))
        assert all(np.array_equal(values[name] != 0, ticket.mask[name]) for name in NAMES)
    network = ticket.rewound(Mixed())
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.as_tensor(DATA[0])).square().sum().backward()
        optimizer.step()
    weights = dict(network.named_parameters())
    assert all(not weights[name].detach().numpy()[~keep].any() for name, keep in ticket.mask.items())
    removed = torch.from_numpy(~ticket.mask["normed.parametrizations.weight.original1"])
    assert not network.get_submodule("normed").weight[removed].any()
    assert ticket.path is not None
    kinds = ["sign-reinit", "constant-magnitude", "random-mask"]
    assert ablate(ticket.path.parent.parent, kinds, model=Mixed, data=DATA)


def test_evolution_changes_both_halves_of_complex_weights(tmp_path):
    class Waves(nn.Module):
        def __init__(self, seed: int = 0) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.wave = nn.Parameter(torch.randn(6, 3, dtype=COMPLEX.dtype))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.to(self.wave.dtype) @ self.wave).abs()

    settings = {"levels": 1, "generations": 4, "population": 8, "criterion": "snr", "strategy": "snes", "replicates": 2}
    ticket = find_ticket(Waves, DATA, trainer="es", tolerance=1.0, quiet=True, out=tmp_path, **settings)
    assert ticket.trained_params is not None
    before, after, keep = ticket.params["wave"], ticket.trained_params["wave"], ticket.mask["wave"]
    assert keep.sum() == 14 and not after[~keep].any()
    assert all((half(before) != half(after))[keep].all() for half in (np.real, np.imag))


def test_a_row_that_is_divided_by_its_norm_is_never_emptied(tmp_path):
    names = ("normed.*original1",)
    ticket = find_ticket(
        Mixed, DATA, prunable=names, densities=(1.0, 0.2), steps=8, tolerance=1.0, quiet=True, out=tmp_path
    )
    assert ticket.mask.density == pytest.approx(0.2, abs=0.02)
    assert ticket.mask["normed.parametrizations.weight.original1"].any(1).all()
    with pytest.raises(BadValue, match="removes whole rows, and the weight of 'normed.*: 0 / 0; name it in `skip`"):
        find_ticket(Mixed, DATA, prunable=names, pattern="rows", levels=1, steps=8, quiet=True, out=tmp_path)
