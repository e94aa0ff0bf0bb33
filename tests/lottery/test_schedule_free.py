"""Optimizers that keep other weights to be evaluated than those at which they take gradients (schedule-free)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from lottery import Data, find_ticket
from pruning.jobs import Budget, Job
from tests.lottery.helpers import blobs, removed, tiny_model
from tests.lottery.test_gd_trainer import half_mask, ready

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


class Averaged(Optimizer):
    """SGD whose evaluated weights are the mean of all iterates; refuses to step while these are in place."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})
        self.training, self.steps = False, 0
        self.seen: list[str] = []

    def _swap(self, key: str, other: str) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state[other] = p.detach().clone()
                if key in state:
                    p.data.copy_(state[key])

    def train(self) -> None:
        if not self.training:
            self._swap("iterate", "mean")
        self.training = True

    def eval(self) -> None:
        if self.training:
            self._swap("mean", "iterate")
        self.training = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        assert self.training, "not in train mode"
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                p.sub_(group["lr"] * p.grad)
                state["mean"] = state.get("mean", p.clone()).lerp(p, 1 / self.steps)


def plainly(steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train by hand; return the iterates and the means."""
    setup, source = ready(lambda: nn.Linear(6, 3), optimizer="sgd", lr=0.1, eval_every=5)
    budget = Budget(0, steps, tuple(range(1, steps + 1)))
    (trained,) = setup.trainer.train([Job(source.initial_state(0), half_mask(source.build(0)), 0, budget)], frozenset())
    mean: dict[str, Any] = {}
    for step in range(1, steps + 1):
        now = trained.snapshots[step]
        mean = {name: mean.get(name, value) + (value - mean.get(name, value)) / step for name, value in now.items()}
    return dict(trained.params), mean


@pytest.mark.parametrize("ema", [None, 0.9])
def test_what_is_evaluated_kept_and_delivered_are_the_evaluation_weights(ema):
    made: list[Averaged] = []

    def make(params: Any) -> Averaged:
        made.append(Averaged(params, 0.1))
        return made[-1]

    setup, source = ready(lambda: nn.Linear(6, 3), optimizer=make, eval_every=5, ema=ema)
    mask = half_mask(source.build(0))
    budget = Budget(0, 20, (10, 20))
    (trained,) = setup.trainer.train([Job(source.initial_state(0), mask, 0, budget)], frozenset())
    iterate, mean = plainly(20)
    assert not made[-1].training and made[-1].steps == 20
    assert (removed(mask, trained.params) == 0).all()
    for name in mean:
        assert trained.snapshots[20][name] == pytest.approx(mean[name], abs=1e-6)
        assert trained.snapshots[10][name] == pytest.approx(plainly(10)[1][name], abs=1e-6)
        if ema is None:
            assert trained.params[name] == pytest.approx(mean[name], abs=1e-6)
            assert made[-1].state[made[-1].param_groups[0]["params"][0]]["iterate"].shape == iterate["weight"].shape
    network = source.build(0)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in trained.params.items()})
    x, y = (torch.from_numpy(part) for part in setup_data(setup))
    loss = nn.functional.cross_entropy(network(x), y).item()
    assert trained.history[-1].validation_loss == pytest.approx(loss, rel=1e-5)


def setup_data(setup: Any) -> Any:
    part = setup.trainer.parts.validation
    return part.inputs.numpy(), part.targets.numpy()


def test_a_search_that_rewinds_delivers_what_it_reports(tmp_path):
    settings: dict[str, Any] = {"steps": 20, "levels": 1, "rewind": "5", "batch_size": 16, "eval_every": 5}
    settings |= {"tolerance": 1.0, "quiet": True, "out": tmp_path}
    ticket = find_ticket(tiny_model, DATA, optimizer=Averaged, lr=0.05, measure_at="final", **settings)
    model = ticket.trained(tiny_model).eval()
    x, y = (torch.from_numpy(part) for part in blobs(30, seed=2))
    assert float((model(x).argmax(1) == y).double().mean()) == pytest.approx(ticket.info["test"])
    assert (removed(ticket.mask, ticket.trained_params) == 0).all()
