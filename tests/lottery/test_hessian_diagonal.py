"""The Hessian's diagonal: exact for small linear layers and small tensors, elsewhere close to the exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery.data.datasets import load_data
from lottery.networks.models import MODELS
from lottery.search.probes.curvature import hessian_diagonal
from pruning.mask import Mask
from pruning.torch_modules import prunable
from tests.lottery.helpers import blobs
from tests.lottery.test_probes import X, Y, flat, gradient_and_hessian, job_of, prober, see, two_layers


def exact(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """Return the diagonal by one product with the Hessian for each weight."""
    weights = {name: model.get_parameter(name) for name in prunable(model)}
    value = loss(model(x), y)
    first = torch.autograd.grad(value, list(weights.values()), create_graph=True)
    found = {}
    for (name, weight), slopes in zip(weights.items(), first, strict=True):
        units = torch.eye(weight.numel(), dtype=weight.dtype)
        rows = [torch.autograd.grad((slopes.flatten() * unit).sum(), weight, retain_graph=True)[0] for unit in units]
        found[name] = torch.stack([row.flatten()[i] for i, row in enumerate(rows)]).view(weight.shape).numpy()
    return found


def estimated(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Any = F.cross_entropy, probes: int = 64) -> Any:
    look = prober(model, x, y, loss).prepared(job_of(model), 0.5)
    return {name: h.numpy() for name, h in hessian_diagonal(replace(look, probes=probes)).items()}


def correlations(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(np.corrcoef(found[name].ravel(), wanted[name].ravel())[0, 1]) for name in wanted}


def digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = (torch.as_tensor(np.asarray(part)[:count]) for part in load_data("digits").train)
    inputs = inputs.float().reshape(count, -1)
    return (inputs - inputs.mean()) / inputs.std(), targets.long()


def trained(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int = 60) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def pictures(count: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = digits(count)
    return x.view(-1, 1, 8, 8), y


def small_conv(norm: bool) -> nn.Module:
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(6)] if norm else [nn.Identity(), nn.Identity()]
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        norms[0],
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3),
        norms[1],
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


class TestExact:
    def test_for_linear_layers_negative_entries_included(self):
        model = two_layers()
        _, h = gradient_and_hessian(model, X.double(), Y)
        found = flat(see("hessian_diagonal", model, x=X.double()))
        assert (np.diag(h) < 0).any(), "tanh bends both ways"
        assert np.allclose(found, np.diag(h), rtol=1e-9, atol=1e-15)

    def test_for_the_default_network_on_digits(self):
        torch.manual_seed(0)
        (x, y), model = digits(100), MODELS["mlp"].value((64,), 10)
        trained(model, x, y)
        found, wanted = see("hessian_diagonal", model, x=x, y=y), exact(model, x, y, F.cross_entropy)
        assert all(correlation > 0.9999 for correlation in correlations(found, wanted).values())
        assert all(np.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-7) for name in wanted)

    def test_whatever_is_written_in_place_after_a_layer(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
        model.double()
        _, h = gradient_and_hessian(model, X.double(), Y)
        assert np.allclose(flat(see("hessian_diagonal", model, x=X.double())), np.diag(h), rtol=1e-9, atol=1e-15)

    @pytest.mark.parametrize("loss", [F.mse_loss, lambda out, y: F.mse_loss(out, y, reduction="sum")])
    def test_for_a_regression(self, loss):
        x, y = torch.eye(6).repeat(4, 1), torch.zeros(24, 3)
        found = see("hessian_diagonal", nn.Linear(6, 3), x=x, y=y, loss=loss)["weight"]
        assert np.allclose(found, 2 * 4 / (24 * 3) if loss is F.mse_loss else 2 * 4)

    @pytest.mark.parametrize("kind", ["batch-norm", "tied", "twice", "pairs", "functional"])
    def test_where_a_linear_layer_is_not_all_there_is(self, kind):
        """Rows that meet, or a weight with another use: small tensors are exact all the same."""

        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                hidden = torch.tanh(self.one(x))
                if kind == "twice":
                    hidden = torch.tanh(self.one(hidden))
                if kind == "functional":
                    hidden = hidden + F.linear(x, self.one.weight)
                if kind == "tied":
                    hidden = hidden @ self.one.weight
                return self.head(hidden)

        def pairs(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(outputs, targets) + torch.tanh(outputs @ outputs.T).mean()

        torch.manual_seed(0)
        norm = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
        model = (norm if kind in ("batch-norm", "pairs") else Tied()).double()
        loss = pairs if kind == "pairs" else F.cross_entropy
        wanted = exact(model, X.double(), Y, loss)
        found = see("hessian_diagonal", model, x=X.double(), loss=loss)
        assert all(np.allclose(found[name], wanted[name], rtol=1e-8, atol=1e-14) for name in wanted)

    def test_a_loss_that_is_linear_in_the_weights_has_none(self):
        found = see("hessian_diagonal", nn.Conv1d(6, 30, 1), x=X[..., None], loss=lambda outputs, _: outputs.sum())
        assert not found["weight"].any()


class TestEstimated:
    """At the default number of products (64), against the exact diagonal."""

    def test_a_wide_linear_layer(self):
        torch.manual_seed(0)
        x, y = digits(128)
        model = trained(nn.Sequential(nn.Linear(64, 100), nn.Tanh(), nn.Linear(100, 10)), x, y)
        name = "0.weight"
        found, wanted = estimated(model, x, y), exact(model, x, y, F.cross_entropy)
        assert correlations(found, wanted)[name] >= 0.98
        assert found[name].min() >= 0

    def test_convolutions(self):
        torch.manual_seed(0)
        x, y = pictures()
        model = trained(small_conv(norm=False), x, y)
        found, wanted = estimated(model, x, y), exact(model, x, y, F.cross_entropy)
        assert min(correlations(found, wanted).values()) >= 0.95
        assert min(h.min() for h in found.values()) >= 0

    def test_convolutions_with_batch_norms_whose_examples_meet(self):
        torch.manual_seed(0)
        x, y = pictures()
        model = trained(small_conv(norm=True), x, y)
        model.train()
        found, wanted = estimated(model, x, y), exact(model, x, y, F.cross_entropy)
        assert min(correlations(found, wanted).values()) >= 0.7
        assert correlations(found, wanted)["8.weight"] > 0.999, "the rows of the head do not meet"

    def test_a_recurrent_layer(self):
        class Words(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.head = nn.RNN(8, 9, batch_first=True), nn.Linear(9, 10)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.rnn(x)[0][:, -1])

        torch.manual_seed(0)
        x, y = digits(32)
        x = x.view(-1, 8, 8)[:, :3]
        model = trained(Words(), x, y, 20)
        assert min(correlations(estimated(model, x, y), exact(model, x, y, F.cross_entropy)).values()) >= 0.9

    def test_more_products_are_closer(self):
        torch.manual_seed(0)
        x, y = pictures(64)
        model = small_conv(norm=True)
        wanted = exact(model, x, y, F.cross_entropy)
        few, many = (correlations(estimated(model, x, y, probes=n), wanted)["4.weight"] for n in (2, 200))
        assert few < many

    def test_is_centred_on_the_exact_one(self):
        x, y = torch.from_numpy(blobs(24)[0])[..., None], Y
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(6, 12, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()
        wanted = exact(model, x.double(), y, F.cross_entropy)["0.weight"]
        found = np.mean([see("hessian_diagonal", model, seed=s, x=x.double(), y=y)["0.weight"] for s in range(6)], 0)
        assert np.abs(found - wanted).max() < 0.15 * wanted.max()

    def test_follows_the_seed(self):
        x, y = torch.from_numpy(blobs(24)[0])[..., None], Y
        model = nn.Sequential(nn.Conv1d(6, 12, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
        one, again, other = (see("hessian_diagonal", model, seed=s, x=x, y=y)["0.weight"] for s in (1, 1, 2))
        assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_removed_weights_add_no_noise():
    x, y = X.double(), torch.zeros(24, 1, dtype=torch.float64)
    mask = Mask({"weight": np.arange(6)[None] == 2})  # a single survivor: nothing is left to mix with
    found = see("hessian_diagonal", nn.Linear(6, 1).double(), mask, x=x, y=y, loss=F.mse_loss)["weight"]
    assert np.allclose(found, np.where(mask["weight"], 2 * (x[:, 2] ** 2).mean().item(), 0))
    wide = Mask({"weight": np.arange(600).reshape(100, 6, 1) == 7})
    signs = see("hessian_diagonal", nn.Conv1d(6, 100, 1).double(), wide, x=x[..., None], y=y, loss=_squares)["weight"]
    assert np.count_nonzero(signs) == 1 and np.allclose(signs[1, 1, 0], 2 * (x[:, 1] ** 2).mean().item() / 100)


def _squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()
