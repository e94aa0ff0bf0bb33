"""Probes: what they see of a network, against autograd on networks small enough to look at whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from lottery import find_ticket
from lottery.data import Data
from lottery.data.parts import Tensors
from lottery.networks.models import MODELS
from lottery.search.levels.drawing import Drawing
from lottery.search.probes import TorchProber
from lottery.search.probes.curvature import TEMPERATURE
from lottery.state.tensors import state_of
from pruning.criteria import get_criterion
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.selection import select
from pruning.torch_modules import apply_mask, prunable
from tests.lottery.helpers import blobs

X, Y = (torch.from_numpy(a) for a in blobs(24))


def two_layers(seed: int = 0) -> nn.Sequential:
    """6-4-3 in float64, tanh between: cross-layer second derivatives do not vanish."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def prober(model: nn.Module, x: Any = X, y: Any = Y, loss: Any = F.cross_entropy, **settings: Any) -> TorchProber:
    part = Tensors(x, y) if x is not None else None
    shape = tuple(x.shape[1:]) if x is not None else settings.pop("shape")
    return TorchProber(model, part, loss, shape, torch.device("cpu"), 1024, 10, None, 8, **settings)


def job_of(model: nn.Module, mask: Mask | None = None, seed: int = 0) -> Job:
    return Job(state_of(model), mask or Mask.dense(prunable(model)), seed, Budget(0, 1))


def see(need: str, model: nn.Module, mask: Mask | None = None, seed: int = 0, **about: Any) -> Mapping[str, Any]:
    return prober(model, **about).look(job_of(model, mask, seed), 0.5, frozenset({need}))[need]


def flat(arrays: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(a).ravel() for a in arrays.values()])


def gradient_and_hessian(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, temperature: float = 1.0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of the loss with respect to all prunable weights in one vector."""
    shapes = prunable(model)
    sizes = [math.prod(shape) for shape in shapes.values()]
    named = dict(model.named_parameters())

    def loss(vector: torch.Tensor) -> torch.Tensor:
        pieces = vector.split(sizes)
        weights = {n: piece.view(shape) for (n, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return F.cross_entropy(functional_call(model, weights, (x,)) / temperature, y)

    vector = torch.cat([named[name].detach().flatten() for name in shapes])
    hessian = torch.autograd.functional.hessian(loss, vector)
    gradient = torch.autograd.functional.jacobian(loss, vector)
    assert isinstance(hessian, torch.Tensor)
    assert isinstance(gradient, torch.Tensor)
    return gradient.numpy(), hessian.numpy()


class TestHessianGradients:
    def test_is_the_joint_hessian_of_all_weights_with_tempered_logits(self):
        # es-lottery took each tensor's own block: a two-layer network tells the two apart.
        model = two_layers()
        g, h = gradient_and_hessian(model, X.double(), Y, TEMPERATURE)
        found = flat(see("hessian_gradients", model, x=X.double()))
        assert np.allclose(found, h @ g, rtol=1e-9, atol=0)
        by_block = np.concatenate([h[:24, :24] @ g[:24], h[24:, 24:] @ g[24:]])
        assert np.linalg.norm(found - by_block) > 0.1 * np.linalg.norm(found)

    def test_removed_weights_are_not_part_of_the_network(self):
        model = two_layers()
        mask = Mask({n: np.random.default_rng(1).random(s) < 0.6 for n, s in prunable(model).items()})
        apply_mask(model, mask)
        g, h = gradient_and_hessian(model, X.double(), Y, TEMPERATURE)
        found = flat(see("hessian_gradients", model, mask, x=X.double()))
        assert np.allclose(found, h @ (g * flat(mask)), rtol=1e-9, atol=1e-18)

    def test_a_regression_keeps_its_predictions(self):
        torch.manual_seed(0)
        model = nn.Linear(6, 2).double()
        x, y = X.double(), torch.randn(24, 2, dtype=torch.float64)
        residual = (model(x) - y).detach()
        gradient = residual.T @ x / 24  # of the mean over 24·2 squares
        expected = gradient @ (x.T @ x / 24)
        found = see("hessian_gradients", model, x=x, y=y, loss=F.mse_loss)["weight"]
        assert np.allclose(found, expected.numpy(), rtol=1e-9)

    def test_a_loss_that_is_linear_in_the_weights_has_no_curvature(self):
        found = see("hessian_gradients", nn.Linear(6, 3), loss=lambda outputs, _: outputs.sum())
        assert not found["weight"].any()

    @pytest.mark.parametrize("need", ["hessian_gradients", "hessian_diagonal"])
    def test_recurrence_and_attention_have_second_derivatives(self, need):
        class Sequence(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(2, 4, batch_first=True)
                self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
                self.head = nn.Linear(4, 3)

            def forward(self, x):
                hidden = self.lstm(x.view(-1, 3, 2))[0]
                return self.head(self.attention(hidden, hidden, hidden, need_weights=False)[0].mean(1))

        torch.manual_seed(0)
        found = see(need, Sequence())
        assert all(np.isfinite(a).all() and a.any() for a in found.values())


class TestFisher:
    def test_is_the_mean_of_squared_gradients_of_single_examples(self):
        model = two_layers()
        squares = []
        for x, y in zip(X.double(), Y, strict=True):
            model.zero_grad()
            F.cross_entropy(model(x[None]), y[None]).backward()
            squares.append(np.concatenate([g.numpy().ravel() ** 2 for g in grads(model)]))
        assert np.allclose(flat(see("fisher", model, x=X.double())), np.mean(squares, 0), rtol=1e-9)

    def test_batch_norm_sees_its_running_statistics(self):
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
        found = see("fisher", model)
        assert all(np.isfinite(a).all() and a.any() for a in found.values())

    def test_a_loss_that_needs_a_batch_is_one_clear_line(self):
        def contrastive(outputs, targets):
            if len(targets) < 2:
                raise ValueError("no pair")
            return F.cross_entropy(outputs, targets)

        with pytest.raises(
            BadValue, match=r"^criterion 'fisher' needs the loss of single .* \(no pair\); use 'taylor'$"
        ):
            see("fisher", nn.Linear(6, 3), loss=contrastive)


def grads(model: nn.Module) -> list[torch.Tensor]:
    found = [model.get_parameter(name).grad for name in prunable(model)]
    return [g for g in found if g is not None]


class TestInputNorms:
    def test_of_a_linear_layer_are_the_norms_of_its_columns(self):
        model = two_layers()
        hidden = torch.tanh(model[0](X.double())).detach()
        found = see("input_norms", model, x=X.double())
        for name, inputs in {"0.weight": X.double(), "2.weight": hidden}.items():
            assert np.allclose(found[name], inputs.norm(dim=0).expand(found[name].shape).numpy())

    def test_tokens_count_like_examples(self):
        x = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
        model = nn.Sequential(nn.Linear(6, 2), nn.Flatten(), nn.Linear(14, 3))
        found = see("input_norms", model, x=x, y=Y[:5])
        assert np.allclose(found["0.weight"][1], x.reshape(-1, 6).norm(dim=0).numpy())

    @pytest.mark.parametrize(
        "settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": "same"}, {"groups": 2, "padding": 1}]
    )
    def test_of_a_convolution_are_what_each_place_of_the_kernel_sees(self, settings):
        x = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        layer = nn.Conv2d(2, 4, 3, **settings).double()
        found = see("input_norms", nn.Sequential(layer, nn.Flatten()), x=x, y=Y[:4])["0.weight"]
        # With a weight of 1 in one place and 0 elsewhere, a convolution returns what that place sees.
        for place in np.ndindex(*layer.weight.shape):
            with torch.no_grad():
                nn.init.zeros_(layer.weight)[place] = 1.0
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
                assert found[place] == pytest.approx(layer(x)[:, place[0]].norm().item()), place

    def test_a_shared_layer_adds_up(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
                self.again.weight = self.fc.weight

            def forward(self, x):
                return self.again(self.fc(x))

        model = Twice()
        inputs = torch.cat([X, model.fc(X).detach()])
        assert np.allclose(see("input_norms", model)["fc.weight"][0], inputs.norm(dim=0).numpy(), rtol=1e-5)

    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention, nn.TransformerEncoderLayer])
    def test_whatever_a_layer_computes_with_shows_what_is_multiplied(self, kind):
        sizes = {nn.MultiheadAttention: (6, 2), nn.TransformerEncoderLayer: (6, 2, 8)}

        class Summed(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = kind(*sizes.get(kind, (6, 3)), batch_first=True)

            def forward(self, x):
                steps = x.view(-1, 2, 3).repeat(1, 1, 2)
                found = self.layer(steps, steps, steps) if kind is nn.MultiheadAttention else self.layer(steps)
                return (found if isinstance(found, torch.Tensor) else found[0]).mean(1)

        torch.manual_seed(0)
        model = Summed()
        found = see("input_norms", model)
        assert found.keys() == prunable(model).keys()
        assert all((norms > 0).all() for norms in found.values())
        steps = X.view(-1, 2, 3).repeat(1, 1, 2)
        first = next(iter(found))  # which sees the inputs themselves
        assert np.allclose(found[first], steps.reshape(-1, 6).norm(dim=0).expand(found[first].shape), rtol=1e-5)

    def test_transposed_axes_experts_and_bare_parameters(self):
        class Mixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1d = nn.Parameter(torch.randn(6, 4))  # [in, out], as GPT-2 has it
                self.experts = nn.Parameter(torch.randn(3, 4, 5))  # [expert, in, out]
                self.head = nn.Parameter(torch.randn(3, 5))
                self.wave = nn.Parameter(torch.randn(5, 2, dtype=torch.complex64))

            def forward(self, x):
                hidden = torch.addmm(torch.zeros(4), x, self.conv1d)
                seen = torch.einsum("nd,edk->nek", hidden, self.experts).sum(1)
                self.hidden, self.seen = hidden.detach(), seen.detach()
                return (
                    torch.einsum("nk,ok->no", seen, self.head) + 0 * (seen.to(torch.complex64) @ self.wave).abs().sum()
                )

        torch.manual_seed(0)
        model = Mixed()
        found = see("input_norms", model, mask=Mask.dense({n: tuple(p.shape) for n, p in model.named_parameters()}))
        model(X)  # the probe looks at a copy
        wanted = {
            "conv1d": X.norm(dim=0)[:, None],
            "experts": model.hidden.norm(dim=0)[None, :, None],
            "head": model.seen.norm(dim=0)[None],
            "wave": model.seen.norm(dim=0)[:, None],
        }
        for name, norms in wanted.items():
            assert np.allclose(found[name], norms.expand(found[name].shape), rtol=1e-5), name

    def test_experts_see_the_tokens_that_they_are_given(self):
        class Routed(nn.Module):
            def __init__(self):
                super().__init__()
                self.experts = nn.Parameter(torch.randn(3, 6, 3))

            def forward(self, x):
                outputs = torch.zeros(len(x), 3)
                for number in range(3):
                    chosen = (x[:, 0].abs() * 10).long() % 3 == number
                    outputs[chosen] = x[chosen] @ self.experts[number]
                return outputs

        found = see("input_norms", Routed(), mask=Mask.dense({"experts": (3, 6, 3)}))["experts"]
        for number in range(3):
            mine = X[(X[:, 0].abs() * 10).long() % 3 == number]
            assert np.allclose(found[number], mine.norm(dim=0)[:, None].expand(6, 3), rtol=1e-5)

    def test_of_a_normalized_weight_are_those_that_its_product_adds(self):
        model: Any = nn.Sequential(weight_norm(nn.Linear(6, 3)))
        name = "0.parametrizations.weight.original1"
        with torch.no_grad():
            model[0].parametrizations.weight.original0.mul_(3)
        found = see("input_norms", model, mask=Mask.dense({name: (3, 6)}))[name]
        added = model[0].weight.detach().abs() * X.norm(dim=0)
        assert np.allclose(np.abs(model.get_parameter(name).detach().numpy()) * found, added, rtol=1e-5)

    def test_of_a_bilinear_layer_are_those_of_both_inputs(self):
        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Bilinear(6, 6, 3)

            def forward(self, x):
                return self.layer(x, 2 * x)

        found = see("input_norms", Both())["layer.weight"]
        assert np.allclose(found[1], torch.einsum("ni,nj->ij", X**2, 4 * X**2).sqrt(), rtol=1e-5)

    def test_what_nothing_multiplies_is_one_clear_line(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.scale = nn.Linear(6, 3), nn.Parameter(torch.ones(24, 3))

            def forward(self, x):
                return self.fc(x) * self.scale

        mask = Mask.dense({"fc.weight": (3, 6), "scale": (24, 3)})
        with pytest.raises(
            BadValue, match=r"'scale' .* \(multiplies activations element by element\); name it in"
        ) as error:
            see("input_norms", Scaled(), mask=mask)
        assert "\n" not in str(error.value)


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


class Written(nn.Module):
    """Functions in the forward pass, where no module can be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.tanh(self.b(F.gelu(self.a(x), approximate="none"))))


def normalized() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.RMSNorm(8), nn.Sigmoid(), nn.Linear(8, 3)
    )


class TestSynflow:
    NETWORKS = (
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)), (6,)),
        (pooled, (1, 6, 6)),
        (Written, (6,)),
        (normalized, (6,)),
        (lambda: MODELS["policy"].value((4,), 2), (4,)),
        (lambda: MODELS["policy"].value((5, 5, 2), 3), (5, 5, 2)),
    )

    def scores(self, model: nn.Module, shape: tuple[int, ...], mask: Mask | None = None) -> dict[str, Any]:
        job = job_of(model, mask)
        evidence = prober(model, x=None, shape=shape).look(job, 0.5, frozenset({"synflow"}))
        trained = Trained(job.mask.apply(dict(job.params)), history=[], evidence=evidence)
        return get_criterion("synflow").score(trained, job)

    @pytest.mark.parametrize(("make", "shape"), NETWORKS)
    def test_every_layer_carries_the_same_flow(self, make, shape):
        torch.manual_seed(0)
        model = make()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.fill_(0.7)  # must not matter
        sums = [s.sum() for s in self.scores(model, shape).values()]
        assert np.allclose(sums, sums[0], rtol=1e-6)
        assert sums[0] > 0

    def test_is_the_product_of_absolute_weights(self):
        model = two_layers()
        first, last = (np.abs(model.get_parameter(n).detach().numpy()) for n in ("0.weight", "2.weight"))
        found = self.scores(model, (6,))
        flow = {"0.weight": first * last.sum(0)[:, None], "2.weight": last * first.sum(1)}
        most = max(f.max() for f in flow.values())
        for name, expected in flow.items():
            assert np.allclose(found[name], expected / most, rtol=1e-9)

    @pytest.mark.parametrize("factor", [1e-4, 1e4])
    def test_does_not_depend_on_the_scale_of_the_weights(self, factor):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        before = self.scores(model, (6,))
        with torch.no_grad():
            model.get_parameter("0.weight").mul_(factor)
        after = self.scores(model, (6,))
        assert all(np.allclose(after[name], before[name], rtol=1e-5) for name in before)

    def test_a_hundred_layers_stay_finite(self):
        torch.manual_seed(0)
        layers = [layer for _ in range(100) for layer in (nn.Linear(40, 40), nn.ReLU())]
        with torch.no_grad():
            for layer in layers[::2]:
                layer.get_parameter("weight").mul_(30)
        found = self.scores(nn.Sequential(*layers), (40,))
        assert all(np.isfinite(s).all() and s.max() > 1e-6 for s in found.values())

    def test_never_empties_a_layer_without_a_guard(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        with torch.no_grad():
            model.get_parameter("2.weight").mul_(1e-3)  # magnitude would empty this one first
        job = job_of(model)
        look = prober(model, x=None, shape=(6,))
        drawing = Drawing(get_criterion("synflow"), look, "rewind", 100, "survivors", guard=0)
        mask = drawing.draw(Trained(job.params, []), job, job.params, 12)
        assert mask.kept == 12
        assert min(mask.counts().values()) > 0
        by_magnitude = select({n: np.abs(job.params[n]) for n in job.mask}, job.mask, 12, guard=0)
        assert min(by_magnitude.counts().values()) == 0

    def test_what_it_cannot_look_at_is_one_clear_line(self):
        with pytest.raises(BadValue, match="takes no single tensor of numbers; use snip"):
            see("synflow", nn.Linear(6, 3), x=X.long())
        empty = Mask({"0.weight": np.ones((4, 6)), "2.weight": np.zeros((3, 4))})
        with pytest.raises(BadValue, match="flow is 0: no path leads through this network"):
            see("synflow", two_layers(), empty)


@pytest.mark.parametrize(
    ("need", "forward", "backward"),
    [("gradients", 1, 1), ("hessian_gradients", 1, 2), ("synflow", 1, 1), ("input_norms", 1, 0)],
)
def test_what_a_look_costs(need, forward, backward, monkeypatch):
    calls: list[int] = []

    class Counted(nn.Linear):
        def forward(self, input):
            calls.append(len(input))
            return super().forward(input)

    asked: list[Any] = []
    honest = torch.autograd.grad

    def grad(outputs, inputs, *rest, **more):
        asked.append(inputs)
        return honest(outputs, inputs, *rest, **more)

    model = nn.Sequential(Counted(6, 4), nn.Tanh(), nn.Linear(4, 3))
    monkeypatch.setattr(torch.autograd, "grad", grad)
    see(need, model)
    looked = [n for n in calls if n == len(X) or need == "synflow"]
    assert len(looked) == forward
    assert len([inputs for inputs in asked if isinstance(inputs, list)]) == backward


@pytest.mark.parametrize("criterion", ["grasp", "synflow", "taylor-second", "fisher", "wanda"])
def test_a_search_runs_from_end_to_end(tmp_path, criterion):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    data = Data(train=blobs(48), validation=blobs(30, seed=1))
    ticket = find_ticket(model, data, criterion=criterion, levels=1, tolerance=1.0, steps=4, out=tmp_path)
    assert ticket.search is not None
    assert ticket.search.levels[1].replicates[0].kept == round(72 * 0.8)
