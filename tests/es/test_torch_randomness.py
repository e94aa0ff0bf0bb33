"""Random numbers that a module or a loss draws: evolution refuses them, wherever they come from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from es.torch_functions import torch_batch_function, torch_network
from pruning.errors import BadValue

RANDOM = np.random.default_rng(0)


class Holding(nn.Module):
    """A module with something of its own, and code that uses it."""

    def __init__(self, held: Any, function: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.held, self.function = nn.Linear(4, 3), held, function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.held, self.layer(x))


class FromGlobal(nn.Module):
    """Noise from a generator of its file."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + float(RANDOM.random())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Holding(None, lambda _, x: x + float(np.random.rand())),  # noqa: NPY002
        lambda: Holding(None, lambda _, x: x + random.random()),
        lambda: Holding(np.random.default_rng(0), lambda own, x: x + float(own.random())),
        lambda: Holding({"noise": [random.Random(0)]}, lambda own, x: x + own["noise"][0].random()),
        lambda: Holding(torch.Generator(), lambda own, x: x + torch.rand(3, generator=own)),
        lambda: Holding(None, lambda _, x: F.dropout(x)),
        FromGlobal,
    ],
)
def test_random_numbers_from_anywhere_are_no_constants(build: Callable[[], nn.Module]):
    with pytest.raises(BadValue, match=r"^(Holding|FromGlobal) draws random numbers even in evaluation mode"):
        torch_network(build().eval(), torch.rand(2, 4))


def test_a_generator_that_nobody_asks_in_evaluation_mode_is_no_matter():
    module = Holding(np.random.default_rng(0), lambda own, x: x).eval()
    assert torch_network(module, torch.rand(2, 4)).evolved == ("layer.weight", "layer.bias")


def test_a_loss_that_draws_random_numbers_is_refused():
    def noisy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().mean() * random.random()

    with pytest.raises(BadValue, match="noisy draws random numbers"):
        torch_batch_function(noisy, torch.ones(3), torch.zeros(3))
