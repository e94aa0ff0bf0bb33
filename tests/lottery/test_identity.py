"""Identities: different things differ, equal things agree, in every process."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import torch
import torch.nn.functional as F
from torch import nn

from lottery.networks.objectives.metric import Metric
from lottery.networks.objectives.objective import accuracy, objective_for
from lottery.networks.objectives.scorers import Scorer
from lottery.state.identity import identify, module_identity
from lottery.state.known_as import FIRST_NAMES, known_as
from pruning.criteria.magnitude import magnitude

LABELS = torch.tensor([0, 1])


def smoothed(amount):
    return lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=amount)


def test_losses_that_differ_have_other_identities():
    losses = [
        F.cross_entropy,
        lambda outputs, labels: F.mse_loss(outputs, labels),
        lambda outputs, labels: F.l1_loss(outputs, labels),
        smoothed(0.1),
        smoothed(0.2),
        functools.partial(F.cross_entropy, label_smoothing=0.1),
        functools.partial(F.cross_entropy, label_smoothing=0.2),
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.ones(2)),
        nn.CrossEntropyLoss(weight=torch.zeros(2)),
    ]
    assert len({identify(loss) for loss in losses}) == len(losses)
    assert identify(smoothed(0.1)) == identify(smoothed(0.1))


class Callable:
    def __init__(self, power: Any, scale: float = 1.0):
        self.power, self.scale = power, scale

    def __call__(self, outputs, targets):
        return self.scale * (outputs - targets).abs() ** self.power

    def method(self, outputs, targets):
        return self(outputs, targets)


def test_what_an_object_holds_is_part_of_its_name():
    """Regression: a method was known without its object, an object by its class, a jitted function by its name."""
    powers = [lambda o, t, p=p: (o - t) ** p for p in (1, 2)]
    things = [Callable(1), Callable(2), Callable(1, 2.0), Callable(1).method, Callable(2).method]
    things += [jax.jit(power) for power in powers]
    assert len({identify(thing) for thing in things}) == len(things)
    assert identify(Callable(1)) == identify(Callable(1))
    round_trip = Callable(1)
    round_trip.power = round_trip
    assert "…" in identify(round_trip)


def test_the_direction_of_a_metric_is_part_of_the_objective():
    def size(outputs, labels):
        return outputs.abs().mean()

    names = {objective_for(LABELS, None, metric).name for metric in (size, Metric("size", size, False))}
    assert len(names) == 2


def test_identities_are_the_same_in_another_process():
    code = (
        "from tests.lottery.test_identity import *\n"
        "print(identify(lambda o, t: sum(map(lambda v: v + 1, [o, t])) in {1, 2, 'a'}), identify(smoothed(0.3)))"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1 and " at 0x" not in runs.pop()


def test_modules_differ_by_structure_code_values_and_modes():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x)

    class Other(Own):
        def forward(self, x):
            return torch.relu(self.fc(x))

    def made(kind):
        torch.manual_seed(0)
        return kind()

    Other.__qualname__, Other.__name__ = Own.__qualname__, Own.__name__
    base = made(Own)
    assert module_identity(base) == module_identity(made(Own))
    changed = [made(Other), made(Own).eval(), made(Own).requires_grad_(False)]
    nudged = made(Own)
    with torch.no_grad():
        nudged.fc.weight[0, 0] += 1
    assert len({module_identity(module) for module in (base, *changed, nudged)}) == 5


def test_what_moved_inside_the_toolkit_is_known_by_its_first_name():
    assert identify(accuracy) == "lottery.objective.accuracy"
    assert identify(Scorer("f1_macro", -100)) == "lottery.scorers.Scorer(ignored=-100, name='f1_macro')"
    assert identify(magnitude) == "pruning.criteria.magnitude.magnitude"
    assert known_as("lottery.networks.objectives.labels") == "lottery.data.labels"
    assert known_as("lottery.networks.models.resnet") == "lottery.models.resnet"
    assert known_as("mine.lottery") == "mine.lottery"
    assert known_as(None) == "None"


def test_every_module_that_has_a_first_name_is_there():
    assert all(importlib.util.find_spec(name) for name in FIRST_NAMES)
