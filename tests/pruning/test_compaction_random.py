"""Random small networks under random masks: whatever they are, the smaller network is the same function."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.pruning.compaction_helpers import assert_exact, holed, images, unsettled

WIDTHS = st.sampled_from([1, 2, 4, 6])


@dataclass(frozen=True)
class Step:
    """One random layer: what comes next, of what width and with which bells."""

    kind: str
    width: int
    norm: bool
    bias: bool
    activation: str
    padding: int


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "sigmoid": torch.sigmoid,
    "shifted": lambda x: F.elu(x) + 0.5,
    "none": lambda x: x,
}
KINDS = ("plain", "residual", "concatenated", "depthwise", "pooled", "averaged", "gated", "twice")
steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(KINDS),
        width=WIDTHS,
        norm=st.booleans(),
        bias=st.booleans(),
        activation=st.sampled_from(list(ACTIVATIONS)),
        padding=st.sampled_from([0, 1]),
    ),
    min_size=1,
    max_size=4,
)


class Random(nn.Module):
    """Convolutions, one after the other in the ways of `KINDS`; flatten or mean; two linear layers."""

    def __init__(self, plan: list[Step], flat: bool):
        super().__init__()
        torch.manual_seed(0)
        self.plan, self.flat = plan, flat
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = 2
        for step in plan:
            same = step.kind in ("residual", "depthwise", "gated", "twice")
            width = channels if same else step.width
            groups = channels if step.kind == "depthwise" else 1
            padding = 1 if step.kind in ("residual", "concatenated", "gated", "twice") else step.padding
            self.convs.append(nn.Conv2d(channels, width, 3, padding=padding, groups=groups, bias=step.bias))
            self.norms.append(nn.BatchNorm2d(width) if step.norm else nn.Identity())
            channels = channels + width if step.kind == "concatenated" else width
        self.first = nn.LazyLinear(5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        for step, conv, norm in zip(self.plan, self.convs, self.norms, strict=True):
            y = norm(conv(x))
            if step.kind == "residual":
                y = y + x
            y = ACTIVATIONS[step.activation](y)
            if step.kind == "concatenated":
                y = torch.cat([x, y], 1)
            elif step.kind == "pooled":
                y = F.max_pool2d(y, 2, 1, padding=1)
            elif step.kind == "averaged":
                y = F.avg_pool2d(y, 2, 1, padding=1)
            elif step.kind == "gated":
                y = x * torch.sigmoid(y.mean((2, 3), keepdim=True)) - y
            elif step.kind == "twice":
                y = y + torch.tanh(y) * 2
            x = y
        x = torch.flatten(x, 1) if self.flat else x.mean((2, 3))
        return self.last(torch.relu(self.first(x)))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    plan=steps,
    flat=st.booleans(),
    seed=st.integers(0, 10_000),
    density=st.sampled_from([0.1, 0.5, 1.0]),
    empty=st.sampled_from([0.0, 0.3, 0.7]),
    example=st.integers(1, 4),
)
def test_random_networks(plan, flat, seed, density, empty, example):
    model = Random(plan, flat).double()
    model(images(2, 2, 12, 12))
    model = unsettled(model, seed)
    found = assert_exact(
        model, holed(model, seed, density, empty), lambda n: images(n, 2, 12, 12), example, batches=(1, 3)
    )
    assert found.opaque == {}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=6),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Softplus, nn.Identity]),
    norm=st.booleans(),
    seed=st.integers(0, 10_000),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_random_perceptrons(sizes, activation, norm, seed, density):
    torch.manual_seed(0)
    model = nn.Sequential()
    for inputs, outputs in itertools.pairwise(sizes):
        model.append(nn.Linear(inputs, outputs))
        model.append(nn.BatchNorm1d(outputs) if norm else nn.Identity())
        model.append(activation())
    model = unsettled(model, seed)
    assert_exact(model, holed(model, seed, density), lambda n: images(n, sizes[0]))
