"""One learning rate for all widths and densities: activations after a few steps keep their size under SμPar."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from pruning.errors import BadValue
from pruning.initializers import draw, get_initializer
from pruning.starts.scaling.coordinate_check import coordinates, log_slopes
from pruning.starts.scaling.learning_rates import learning_rate_factors
from pruning.starts.tensor import Layout, Tensor
from pruning.starts.weight import Place

BASE, WIDTHS, DENSITIES = 64, (64, 128, 256, 512), (1.0, 0.5, 0.25, 0.125)
SEEDS, STEPS = (0, 1, 2), 5
LR = {"adam": 0.01, "sgd": 1.0}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
LAYERS = ("0", "2", "4", "6")


def network(width: int) -> nn.Sequential:
    sizes = [32, width, width, width, 8]
    layers = [nn.Linear(into, out, bias=False) for into, out in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])


def masked(model: nn.Module, density: float, seed: int) -> list[Tensor]:
    """Return the weights, hidden ones under random masks."""
    named, rng = dict(model.named_parameters()), np.random.default_rng(seed)
    tensors = []
    for index, (name, weight) in enumerate(named.items()):
        last = index == len(named) - 1
        keep = rng.random(tuple(weight.shape)) < (density if index > 0 and not last else 1.0)
        layout = Layout(keep.shape, (), (0,), (1,))
        tensors.append(Tensor(name, keep, layout, activation="tanh", place=Place(index, last=last)))
    return tensors


def trained(width: int, density: float, seed: int, rule: str, optimizer: str) -> dict[str, float]:
    """Return mean |activation| of every layer after a few steps, with the standard parametrization or by a rule."""
    model = network(width)
    named, tensors = dict(model.named_parameters()), masked(model, density, seed)
    settings = {"base_width": BASE}
    scheme = get_initializer(rule, settings) if rule != "standard" else get_initializer("lecun-normal")
    factors = learning_rate_factors(rule, tensors, optimizer, settings) if rule != "standard" else {}
    for name, values in draw(tensors, scheme, seed).values.items():
        named[name].data = torch.from_numpy(values.astype(np.float32))
    groups = [{"params": [weight], "lr": LR[optimizer] * factors.get(name, 1.0)} for name, weight in named.items()]
    steps = OPTIMIZERS[optimizer](groups)
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.randn(64, 32, generator=generator), torch.randint(8, (64,), generator=generator)
    for _ in range(STEPS):
        steps.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        for tensor in tensors:
            gradient = named[tensor.name].grad
            assert gradient is not None
            gradient.mul_(torch.from_numpy(tensor.keep))
        steps.step()
    return coordinates(model, inputs, LAYERS)


def over_widths(rule: str, optimizer: str = "adam", sizes: Sequence[int] = WIDTHS) -> dict[str, float]:
    return log_slopes({width: [trained(width, 0.5, seed, rule, optimizer) for seed in SEEDS] for width in sizes})


def over_densities(rule: str, optimizer: str = "adam") -> dict[str, float]:
    return log_slopes({each: [trained(256, each, seed, rule, optimizer) for seed in SEEDS] for each in DENSITIES})


def test_acceptance_9_coordinate_check_at_densities_1_half_quarter_eighth() -> None:
    assert all(abs(slope) < 0.05 for slope in over_densities("smupar").values())
    standard = over_densities("standard")
    assert all(abs(standard[layer]) > 0.2 for layer in LAYERS[1:])  # the first is dense


def test_activations_are_flat_in_the_width() -> None:
    assert all(abs(slope) < 0.05 for slope in over_widths("smupar").values())
    standard = over_widths("standard")
    assert all(abs(standard[layer]) > 0.2 for layer in LAYERS[2:])  # what is before has few layers that move


def test_width_alone_does_not_correct_the_density() -> None:
    assert all(abs(over_densities("mup")[layer]) > 0.2 for layer in LAYERS[1:])


def test_the_rates_of_sgd_are_flat_in_the_density_too() -> None:
    assert all(abs(slope) < 0.05 for slope in over_densities("smupar", "sgd").values())


def test_what_a_check_cannot_look_at_is_said() -> None:
    with pytest.raises(BadValue, match="the model has no layer 'fc': it has 0, 1"):
        coordinates(nn.Sequential(nn.Flatten(), nn.Tanh()), torch.ones(1, 2), ["fc"])
    with pytest.raises(BadValue, match="takes two widths"):
        log_slopes({64: [{"fc": 1.0}]})
