"""Any network goes sparse: by name or by place, seen through or not; what cannot be the same network runs dense."""

from __future__ import annotations

import os
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning.calls.structures import same_structure, tensors_in
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.forms import sparse_form
from pruning.sparse.module import SparseModule, sparse_module
from pruning.torch_modules import apply_mask, clean_copy

os.environ["HF_HUB_OFFLINE"] = "1"
FORCED = Choosing(backend="bags", cache=None)
X = torch.linspace(-1, 1, 48).reshape(6, 8)


def masked(model: nn.Module) -> Mask:
    """A mask of every matrix and kernel that is no embedding."""
    drawn = np.random.default_rng(0)
    tables = {f"{path}.weight" for path, part in model.named_modules() if isinstance(part, nn.Embedding)}
    return Mask(
        {
            name: drawn.random(tuple(p.shape)) < 0.3
            for name, p in model.named_parameters()
            if p.dim() > 1 and name not in tables
        }
    )


def same_as_dense(model: nn.Module, *args: Any, choosing: Choosing = FORCED, **kwargs: Any) -> SparseModule:
    """Make a network sparse and compare it with the masked dense one, on the example and on fewer examples."""
    mask = masked(model)
    dense = apply_mask(clean_copy(model)[0], mask).eval()
    module = sparse_module(model, mask, *args, choosing=choosing, **kwargs).eval()
    fewer = ([t[:2] for t in args], {name: t[:2] for name, t in kwargs.items()})
    for given, named in ((args, kwargs), fewer):
        with torch.no_grad():
            found, wanted = module(*given, **named), dense(*given, **named)
        assert same_structure(found, wanted)
        for one, other in zip(tensors_in(found), tensors_in(wanted), strict=True):
            assert torch.allclose(one, other, atol=1e-4)
    assert module.state_dict().keys() == dense.state_dict().keys()
    return module


def backends(module: SparseModule) -> dict[str, str]:
    return {layer.name: layer.backend for layer in module.report.layers}


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x, mask=None, *, scale=1.0):
        hidden = self.one(x).relu()
        return {"y": scale * self.two(hidden if mask is None else hidden * mask), "nothing": None}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"x": X}),
        ((X,), {"mask": torch.ones(6, 6)}),
        ((X,), {"mask": None, "scale": 2.0}),
        (({"x": X, "scale": 0.5},), {}),
        ((UserDict(x=X, mask=None),), {}),
        ((X, torch.ones(6, 6)), {}),
    ],
    ids=["by name", "both", "nothing and a number", "a mapping", "somebody's mapping", "by place"],
)
def test_an_example_is_given_as_a_call_is(args, kwargs):
    model = Named()
    module = sparse_module(model, masked(model), *args, choosing=FORCED, **kwargs).eval()
    assert module.report.way == "sparse"
    positional, named = (args, kwargs) if isinstance(next(iter(args), X), torch.Tensor) else ((), dict(args[0]))
    dense = apply_mask(model, masked(model)).eval()
    with torch.no_grad():
        assert torch.allclose(module(*positional, **named)["y"], dense(*positional, **named)["y"], atol=1e-5)
        assert module._chosen(positional, named) is not module.network


class Asks(nn.Module):
    """Reads its layers' weights and attributes, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Linear(16, 3)

    def forward(self, x):
        assert self.conv.stride == (2, 2) and self.conv.padding == (1, 1) and self.conv.out_channels == 4
        assert self.fc.in_features == self.fc.weight.T.shape[0] == 16
        hidden = self.conv(x.to(self.conv.weight.dtype)).flatten(1)
        return self.fc(hidden) + F.linear(hidden, self.fc.weight.to(self.fc.weight.device)) + self.fc.weight.norm()


def test_a_sparse_layer_answers_as_the_dense_one_does():
    module = same_as_dense(Asks(), torch.randn(6, 2, 4, 4))
    assert set(backends(module).values()) == {"bags"}
    module.train()(torch.randn(6, 2, 4, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


class Turned(nn.Module):
    """A linear layer of somebody's, whose weight lies [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


class Scaled(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


class Noisy(nn.Linear):
    def forward(self, input):
        return super().forward(input + torch.randn_like(input) if self.training else input)


def test_somebodys_linear_layer_has_a_sparse_form():
    model = nn.Sequential(Turned(8, 6), nn.ReLU(), Turned(6, 6))
    module = same_as_dense(model, X)
    assert set(backends(module).values()) == {"bags"}
    form = sparse_form(model[0], {"weight": masked(model)["0.weight"]})
    assert form.nf == 6 and form.weight.shape == (8, 6) and form.state_dict()["weight"].shape == (8, 6)
    module.load_state_dict(model.state_dict())


@pytest.mark.parametrize("kind", [Scaled, Noisy])
def test_a_layer_that_does_more_than_a_product_stays_dense(kind):
    module = same_as_dense(nn.Sequential(kind(8, 6), nn.ReLU(), nn.Linear(6, 2)), X)
    assert backends(module) == {"0.weight": "dense", "2.weight": "bags"}
    assert "not by a layer that has a sparse form" in module.report.text()
    assert "80.0% of the masked weights" in module.report.text()


def test_a_layer_with_a_hook_stays_dense_and_the_hook_runs():
    model, seen = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    module = same_as_dense(model, X)
    assert backends(module)["0.weight"] == "dense"
    seen.clear()
    module(X)
    assert seen


class Wrong(nn.Linear):
    """Breaks a network that stands in for its own."""

    def forward(self, input):
        if float(input.sum()) < 1e9 and not isinstance(self.fc, nn.Linear):
            raise TypeError("an nn.Linear is needed")
        return super().forward(input) + self.fc(input)  # pyright: ignore[reportCallIssue]


def test_a_form_that_raises_is_dense_with_the_reason():
    model = Wrong(8, 6)
    model.fc = nn.Linear(8, 6)
    module = same_as_dense(model, X)
    assert set(backends(module).values()) == {"dense"}
    assert "an nn.Linear is needed" in module.report.text()


class OfOneSize(nn.Module):
    """Its trace would hold for the number of examples that it was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 6)

    def forward(self, x):
        return self.fc(x) + (torch.ones(6) if len(x) > 4 else torch.zeros(6))


def test_control_flow_that_depends_on_the_batch_is_kept():
    same_as_dense(OfOneSize(), X)


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.count, self.seen = nn.Linear(8, 6), 0, None

    def forward(self, x):
        self.count += 1
        self.seen = self.fc(x)
        return self.seen * (1 + self.count % 2)


def test_a_network_that_keeps_what_it_saw_runs_itself():
    module = sparse_module(Keeps(), masked(Keeps()), X, choosing=FORCED).eval()
    assert "changes its attribute 'count'" in module.report.text()
    with torch.no_grad():
        first, second = module(X), module(X)
    assert torch.allclose(2 * first, second) or torch.allclose(first, 2 * second)
    assert module.count == 2


class Draws(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.more = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.more(F.dropout(self.fc(x), 0.5, training=True))


def test_a_network_that_draws_in_evaluation_mode_draws_the_same_numbers_and_nobody_elses():
    model = Draws()
    mask, state = masked(model), torch.random.get_rng_state()
    module = sparse_module(model, mask, X, choosing=FORCED).eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    dense = apply_mask(model, mask).eval()
    with torch.no_grad():
        found = [(torch.manual_seed(1), network(X))[1] for network in (module, dense)]
    assert torch.allclose(*found, atol=1e-5)


class NeedsGradients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 1)

    def forward(self, x):
        x = x.requires_grad_()
        return torch.autograd.grad(self.fc(x).square().sum(), x)[0]


def test_a_network_that_needs_gradients_runs_itself():
    module = sparse_module(NeedsGradients(), masked(NeedsGradients()), X, choosing=FORCED).eval()
    assert "does not run without gradients" in module.report.text()
    assert module(X).shape == X.shape


class Returns(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.fc, self.what = nn.Linear(8, 6), what

    def forward(self, x):
        return self.what(self.fc(x))


@pytest.mark.parametrize("what", [lambda y: float(y.sum()), lambda y: None, lambda y: y[:0], lambda y: y * torch.nan])
def test_outputs_that_cannot_be_compared_are_a_refusal(what):
    with pytest.raises(BadValue, match="no sparse form can be compared with it"):
        sparse_module(Returns(what), masked(Returns(what)), X, choosing=FORCED)


def test_versions_of_modules_are_saved_and_loaded_by_the_names_of_the_dense_network():
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6))
    module = sparse_module(model, masked(model), X, choosing=FORCED)
    assert module.state_dict()._metadata == model.state_dict()._metadata  # pyright: ignore[reportAttributeAccessIssue]
    old = model.state_dict()
    del old["1.num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        module.load_state_dict(old)
    old._metadata["1"]["version"] = 1  # pyright: ignore[reportAttributeAccessIssue]
    module.load_state_dict(old)


def test_a_call_that_the_faster_form_does_not_take_runs_the_network_itself(monkeypatch):
    module = same_as_dense(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), X)
    with torch.no_grad():
        wanted = module(X)
        monkeypatch.setattr(module._hidden["inference"], "forward", lambda *_: [][0])
        with pytest.warns(RuntimeWarning, match="the network itself runs from now on"):
            assert torch.allclose(module(X), wanted, atol=1e-5)
        assert module.report.way == "dense"
    with pytest.raises(RuntimeError, match="input"):
        module(torch.ones(2, 5))


def test_complex_layers_are_compared_in_both_parts():
    model = nn.Sequential(*(nn.Linear(*sizes, dtype=torch.complex64) for sizes in ((8, 6), (6, 2))))
    same_as_dense(model, X.to(torch.complex64), choosing=Choosing(backend="compact", cache=None))


SMALL: Any = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def bert() -> nn.Module:
    import transformers as hf

    return hf.BertForSequenceClassification(hf.BertConfig(**SMALL, max_position_embeddings=16))


def gpt2() -> nn.Module:
    import transformers as hf

    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16))


def mixtral() -> nn.Module:
    import transformers as hf

    return hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=2))


@pytest.mark.parametrize("make", [bert, gpt2, mixtral])
def test_transformers_keep_their_classes_and_their_caches(make):
    torch.manual_seed(0)
    ids = torch.randint(0, 64, (4, 8))
    module = same_as_dense(make(), input_ids=ids, attention_mask=torch.ones_like(ids))
    dense = [name for name, backend in backends(module).items() if backend == "dense"]
    assert dense == [name for name in backends(module) if "mlp.experts" in name or "mlp.gate" in name]
