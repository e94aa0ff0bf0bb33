"""A probe looks at a network in the mode in which it trains, at any rewind point, and changes nothing of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery.data import Data
from lottery.data.batches import sample
from lottery.networks.example_gradients import NetworkLoss, mean_squares
from lottery.runs.given import Given
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.search.probes import TorchProber
from lottery.search.probes.modes import with_statistics_of, without_noise
from lottery.state.tensors import state_of
from pruning.jobs import Budget, Job
from pruning.torch_modules import prunable
from pruning.watch import Silent
from tests.lottery.helpers import blobs
from tests.lottery.test_probes import X, Y, flat, job_of, prober

LOOKING = ["gradients", "hessian_gradients", "hessian_diagonal", "input_norms"]


def with_norms() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 3),
    )


def begun(model: nn.Module, steps: int = 3) -> nn.Module:
    """Train a few steps: running statistics are then neither fresh nor those of the data."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(3 * X + 2), Y).backward()
        optimizer.step()
    return model


class Recorded:
    """A loss that keeps what it returned; `copy` keeps the list."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        value = F.cross_entropy(outputs, targets)
        self.seen.append(float(value.detach()))
        return value


def losses_seen(model: nn.Module, need: str, x: Any = X, y: Any = Y) -> list[float]:
    loss = Recorded()
    prober(model, x, y, loss).look(job_of(model), 0.5, frozenset({need}))
    return loss.seen


def loss_in_training(model: nn.Module) -> float:
    """Return the loss of a training step without dropout, on the batch that a probe of seed 0 looks at."""
    network = copy.deepcopy(model).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs, targets = sample(prober(model).part, len(X), 0)  # pyright: ignore[reportArgumentType]
    return F.cross_entropy(network(inputs), targets).item()


class TestBatchNorm:
    @pytest.mark.parametrize("steps", [0, 3])
    @pytest.mark.parametrize("need", ["gradients", "hessian_diagonal"])
    def test_a_probe_sees_the_loss_that_training_sees(self, need, steps):
        model = begun(with_norms(), steps)
        wanted = loss_in_training(model)
        assert losses_seen(model, need)[0] == pytest.approx(wanted, rel=1e-5)
        if steps:
            assert abs(F.cross_entropy(model.eval()(X), Y).item() - wanted) > 0.1 * wanted, "running ones are far off"

    def test_scores_are_those_of_training(self):
        model = begun(with_norms())
        network = without_noise(copy.deepcopy(model).train())
        loss = F.cross_entropy(network(X), Y)
        weights = [network.get_parameter(name) for name in prunable(network)]
        wanted = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss, weights)])
        found = prober(model).look(job_of(model), 0.5, frozenset({"gradients"}))["gradients"]
        assert np.allclose(flat(found), wanted, rtol=1e-3, atol=1e-6)

    def test_input_norms_are_those_of_training(self):
        model = begun(with_norms())
        network = without_noise(copy.deepcopy(model).train())
        hidden = network[:4](X).detach()  # pyright: ignore[reportIndexIssue]
        found = prober(model).look(job_of(model), 0.5, frozenset({"input_norms"}))["input_norms"]
        assert np.allclose(found["4.weight"][0], hidden.norm(dim=0).numpy(), rtol=1e-4)

    @pytest.mark.parametrize("need", [*LOOKING, "fisher", "synflow", "edge-popup"])
    def test_nothing_of_the_model_changes(self, need):
        model = begun(with_norms())
        before, modes = state_of(model), [module.training for module in model.modules()]
        prober(model).look(job_of(model), 0.5, frozenset({need}))
        after = state_of(model)
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert modes == [module.training for module in model.modules()]

    @pytest.mark.parametrize("need", [*LOOKING, "fisher"])
    def test_one_that_is_frozen_keeps_its_own_statistics(self, need):
        model = begun(with_norms())
        model[1].eval()  # pyright: ignore[reportIndexIssue]
        look = prober(model).prepared(job_of(model), 0.5)
        before = look.model.get_buffer("1.running_mean").clone()
        other = look.model.get_buffer("5.running_mean").clone()
        prober(model).see(need, look)
        assert torch.equal(look.model.get_buffer("1.running_mean"), before)
        assert not torch.equal(look.model.get_buffer("5.running_mean"), other), "that one trains"

    def test_a_frozen_one_is_seen_as_it_trains(self):
        model = begun(with_norms())
        model[1].eval()  # pyright: ignore[reportIndexIssue]
        network = without_noise(copy.deepcopy(model))
        assert losses_seen(model, "gradients") == [pytest.approx(F.cross_entropy(network(X), Y).item(), rel=1e-5)]

    def test_a_model_in_evaluation_mode_as_a_whole_trains_as_a_whole_and_is_seen_so(self):
        data = Data(train=blobs(48), validation=blobs(24, seed=1))
        settings = {"levels": 1, "steps": 4, "criterion": "snip"}
        found = prepare_search(Request(Given(lambda seed: with_norms().eval(), data), settings), Silent())
        assert isinstance(found.plan.drawing.prober, TorchProber)
        job = Job(found.frame.initial[0], found.frame.dense[0], 0, Budget(0, 0))
        look = found.plan.drawing.prober.prepared(job, 1.0)
        assert all(module.training for module in look.model.modules())

    def test_a_single_example_has_no_statistics_and_that_is_said(self):
        model = begun(with_norms())
        one = prober(model, X[:1], Y[:1])
        with pytest.raises(Exception, match="more than 1 value per channel"):
            one.look(job_of(model), 0.5, frozenset({"gradients"}))


class TestFisher:
    def test_batch_norms_hold_the_statistics_of_the_batch(self):
        model = begun(with_norms())
        reference = with_statistics_of(copy.deepcopy(model), X)
        weights = {name: reference.get_parameter(name) for name in prunable(model)}
        wanted = mean_squares(NetworkLoss(reference, weights, F.cross_entropy, "x", "y"), [(X, Y)])
        found = prober(model).look(job_of(model), 0.5, frozenset({"fisher"}))["fisher"]
        assert np.allclose(flat(found), np.concatenate([w.numpy().ravel() for w in wanted.values()]), rtol=1e-3)

    def test_their_loss_is_the_one_of_training(self):
        model = begun(with_norms())
        held = with_statistics_of(copy.deepcopy(model), X)
        assert F.cross_entropy(held(X), Y).item() == pytest.approx(loss_in_training(model), rel=0.02)
        assert not any(module.training for module in held.modules())


class TestNoise:
    def test_dropout_of_every_kind_is_off(self):
        class Noise(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.randn_like(x) if self.training else x

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(2, 4, num_layers=2, dropout=0.5, batch_first=True)
                self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
                self.noise, self.drop, self.rrelu = Noise(), nn.AlphaDropout(0.5), nn.RReLU()
                self.head = nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                hidden = self.lstm(x.view(-1, 3, 2))[0]
                hidden = self.attention(hidden, hidden, hidden, need_weights=False)[0].mean(1)
                return self.head(self.rrelu(self.drop(self.noise(hidden))))

        torch.manual_seed(0)
        model = Net()
        wanted = F.cross_entropy(copy.deepcopy(model).eval()(X), Y).item()
        assert losses_seen(model, "gradients") == [pytest.approx(wanted, rel=1e-5)]

    def test_a_mask_that_is_learned_trains_with_it(self):
        torch.manual_seed(0)
        model, drawn = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)), []
        model[1].register_forward_hook(lambda module, args, output: drawn.append(bool((output == 0).any())))
        prober(model).look(job_of(model), 0.5, frozenset({"edge-popup"}))
        assert any(drawn)

    def test_an_auxiliary_head_is_seen_as_the_loss_of_training_sees_it(self):
        class Aux(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body, self.head, self.aux = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

            def forward(self, x: torch.Tensor) -> Any:
                hidden = torch.relu(self.body(x))
                return (self.head(hidden), self.aux(hidden)) if self.training else self.head(hidden)

        def loss(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
            main, aux = outputs
            return F.cross_entropy(main, targets) + 0.4 * F.cross_entropy(aux, targets)

        model = Aux()
        found = prober(model, X, Y, loss).look(job_of(model), 0.5, frozenset({"gradients"}))["gradients"]
        assert all(np.abs(g).max() > 0 for g in found.values())
