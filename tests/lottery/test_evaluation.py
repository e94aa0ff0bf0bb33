"""An evaluation changes nothing: how often a network is looked at, and on which parts, does not change a bit of it."""

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery import Data, find_ticket
from lottery.data.parts import Tensors, prepare
from lottery.networks.evaluation import InEvaluation, evaluate
from lottery.networks.objectives.objective import objective_for
from lottery.runs.ticket import Ticket
from lottery.state.tensors import state_of
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.stackable import can_stack
from pruning.errors import BadValue
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from tests.lottery.helpers import blobs, search

INPUTS, LABELS = (torch.from_numpy(array) for array in blobs(90))
TRAIN, VALIDATION, TEST = ((INPUTS[part], LABELS[part]) for part in (slice(60), slice(60, 75), slice(75, None)))
CPU = torch.device("cpu")


class Base(nn.Module):
    """6-8-3; its subclasses do something in evaluation that their training could notice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.hidden(torch.relu(self.first(x))))


class Sampling(Base):
    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) / 3 + random.random() / 3 + np.random.rand() / 3  # noqa: NPY002


class OwnGenerators(Base):
    def __init__(self) -> None:
        super().__init__()
        self.sources = [torch.Generator().manual_seed(1), random.Random(2), np.random.default_rng(3)]

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        by_torch, by_python, by_numpy = self.sources
        return x + torch.randn(x.shape, generator=by_torch) / 3 + by_python.random() / 3 + by_numpy.random() / 3


class Counting(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.steps = 0

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.steps += 1
        return x * (1 + self.calls / 100 + self.steps / 100)


class Merging(Base):
    """A low-rank adapter that is merged into the weight in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.merged = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(8, 2)), False

    def train(self, mode: bool = True) -> "Merging":
        if mode == self.merged:
            change = self.up.data @ self.down.data
            self.first.weight.data += -change if mode else change
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.first.weight if self.merged else self.first.weight + self.up @ self.down
        return self.second(torch.relu(F.linear(x, weight, self.first.bias)))


class Switching(Base):
    """Draws in training only, by a switch of its own."""

    noisy = True

    def train(self, mode: bool = True) -> "Switching":
        self.noisy = mode
        return super().train(mode)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if self.noisy else x


class Remembering(Base):
    def __init__(self) -> None:
        super().__init__()
        self.past: list[torch.Tensor] = []

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        self.past.append(x.detach().mean(0))
        return x + torch.stack(self.past[-5:]).mean(0)


class Annealed:
    """A loss that grows with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (1 + self.calls / 10) * F.cross_entropy(outputs, targets)


def trained(tmp_path: Any, model: nn.Module, often: bool, **settings: Any) -> Any:
    """The weights of a last level that was evaluated at every second step on two parts, or once on one."""
    data = Data(TRAIN, VALIDATION, TEST if often else None)
    every: dict[str, Any] = {"eval_every": 2 if often else 20, "steps": 20, "levels": 1, "tolerance": 1.0}
    return find_ticket(model, data, out=tmp_path / str(often), quiet=True, **every, **settings).trained_params


@pytest.mark.parametrize("kind", [Sampling, OwnGenerators, Counting, Merging, Switching, Remembering])
def test_the_weights_are_the_same_however_often_they_are_looked_at(tmp_path, kind):
    often, once = (trained(tmp_path, kind(), often) for often in (True, False))
    assert all(np.array_equal(often[name], once[name]) for name in once)


def test_a_loss_that_counts_its_calls_counts_those_of_training(tmp_path):
    often, once = (trained(tmp_path, Base(), often, loss=Annealed()) for often in (True, False))
    assert all(np.array_equal(often[name], once[name]) for name in once)


@pytest.mark.parametrize("mode", [True, False], ids=["given in training mode", "given merged"])
def test_what_is_recorded_is_what_is_delivered(tmp_path, mode):
    model = Merging().train(mode)
    found = search(tmp_path, model, Data(TRAIN, VALIDATION), steps=20, lr=0.1)
    replicate = found.levels[-1].replicates[0]
    ticket = Ticket.load(replicate.path)
    with torch.no_grad():
        outputs = ticket.trained(model).eval()(VALIDATION[0])
    assert float((outputs.argmax(1) == VALIDATION[1]).float().mean()) == pytest.approx(replicate.validation)


def test_adapters_are_not_evolved_where_evaluation_merges_them(tmp_path):
    with pytest.raises(BadValue, match=r"eval\(\) of Merging writes its parameter 'first.weight'"):
        search(tmp_path, Merging(), Data(TRAIN, VALIDATION), trainer="es")


def test_layers_that_merge_are_not_stacked():
    jobs = [Job(state_of(Merging()), Mask.dense({"first.weight": (8, 6)}), seed, Budget(0, 1)) for seed in range(6)]
    parts = prepare(Data(TRAIN, VALIDATION, TEST), 0)
    reason = can_stack(Merging(), GDConfig(), parts, jobs, frozenset())
    assert reason == "a layer does something of its own when its mode changes"


class Force(nn.Module):
    """The gradient of an energy, taken in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.requires_grad_()
        energy = self.second(torch.tanh(self.first(x))).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0][:, :3]


class TestGradientsInTheForwardPass:
    def test_are_taken_in_evaluation_too_and_nothing_else_is_recorded(self):
        model = Force()
        outputs = InEvaluation(model)(INPUTS)
        assert torch.equal(outputs, model(INPUTS.clone())) and not outputs.requires_grad and not INPUTS.requires_grad

    @pytest.mark.parametrize("kind", [Force, lambda: Functional()])
    def test_such_a_network_is_searched(self, tmp_path, kind):
        assert len(search(tmp_path, kind(), Data(TRAIN, VALIDATION, TEST)).levels) == 2

    def test_other_errors_are_told_as_they_are(self):
        class Failing(Base):
            def hidden(self, x: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("no such thing")

        with pytest.raises(Exception, match="no such thing"):
            evaluate(Failing(), Tensors(INPUTS, LABELS), objective_for(LABELS), CPU, 30)


class Functional(Base):
    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.func.vmap(torch.func.grad(lambda row: torch.sin(row).sum()))(x)
