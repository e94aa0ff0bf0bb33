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

from es.translation.functions import to_jax, torch_batch_function, torch_network
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


class SeedsItself(nn.Module):
    """Projects onto random directions that are the same each time, as hashing attention does."""

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.fc, self.seed = nn.Linear(4, 3), seed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.seed is not None:
            torch.manual_seed(self.seed)
        return self.fc(x) @ torch.randn(3, 2)


def test_code_that_seeds_torch_itself_draws_the_same_numbers_each_time():
    model, x = SeedsItself(3), torch.randn(5, 4)
    before = torch.get_rng_state()
    network = torch_network(model, x)
    assert torch.equal(before, torch.get_rng_state())
    doubled = {name: 2 * parameter.detach() for name, parameter in model.named_parameters()}
    found = network.apply(to_jax(doubled), to_jax(x))
    with torch.no_grad(), torch.random.fork_rng():
        for parameter in model.parameters():
            parameter.mul_(2)
        wanted = model(x).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadValue, match="SeedsItself draws random numbers"):
        torch_network(SeedsItself(None), x)
