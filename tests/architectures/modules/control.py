"""Forward passes that do more than compute: loops, gradients, state, random numbers, replaced methods."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.architectures.modules.weights import perceptron


class Base(nn.Module):
    """6-16-3; most of what follows adds one habit to it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(x))

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.hidden(x))


class LambdaAttribute(Base):
    """Keeps a function of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.compute = lambda x: self.second(torch.relu(self.first(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(x)


def replaced_forward() -> nn.Module:
    """A model whose forward was replaced by a function of it."""
    model = perceptron()
    inner = model.forward
    model.forward = lambda input: inner(input) * 1.5
    return model


def hooked() -> nn.Module:
    """Forward hooks that change inputs and outputs, and one that records."""
    model = perceptron()
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    model[2].register_forward_hook(lambda module, args, output: output - output.mean(-1, keepdim=True))
    return model


class RunningMean(Base):
    """Writes a buffer in every call, in evaluation too, and counts the calls."""

    mean: torch.Tensor
    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.calls += 1
            if self.training:
                self.mean.lerp_(x.mean(0), 0.1)
        return super().forward(x - self.mean)


class PythonCounter(Base):
    """Counts steps in a plain attribute, and warms up by it."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.step += 1
        return super().forward(x) * min(1.0, 0.5 + 0.1 * self.step)


class Variational(nn.Module):
    """A variational autoencoder that samples in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.spread = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.decode = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.encode(x))
        mean, spread = self.mean(features), self.spread(features)
        return self.decode(mean + torch.randn_like(mean) * (0.1 * spread).exp() * 0.1)


class Energy(nn.Module):
    """The gradient of an energy with respect to the input, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return -force


class NeuralODE(nn.Module):
    """Runge-Kutta steps of a learned field."""

    def __init__(self) -> None:
        super().__init__()
        self.field, self.out = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6)), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            k1 = self.field(x)
            x = x + 0.25 * self.field(x + 0.125 * k1)
        return self.out(x)


class Equilibrium(nn.Module):
    """A fixed point found without gradients, then one step with them (DEQ)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drive = self.enter(x)
        with torch.no_grad():
            state = torch.zeros_like(drive)
            for _ in range(8):
                state = torch.tanh(0.3 * self.cell(state) + drive)
        return self.out(torch.tanh(0.3 * self.cell(state) + drive))


class DataDependent(Base):
    """Branches on the values of a batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.hidden(x)
        if features.mean() > 0.5:
            features = features * 0.5
        return self.second(features)


class EarlyExit(Base):
    """Stops a loop when it has converged, by `.item()`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.hidden(x)
        for _ in range(5):
            if features.abs().max().item() < 1:
                break
            features = features * 0.7
        return self.second(features)


class Checkpointed(nn.Module):
    """Gradient checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.block, self.out = (
            nn.Linear(6, 16),
            nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
            nn.Linear(16, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(checkpoint(self.block, self.enter(x), use_reentrant=False))


class Highway(nn.Module):
    """Gates between a layer and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.gates = (nn.ModuleList(nn.Linear(6, 6) for _ in range(2)) for _ in range(2))
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, gate in zip(self.layers, self.gates, strict=True):
            keep = torch.sigmoid(gate(x))
            x = keep * torch.relu(layer(x)) + (1 - keep) * x
        return self.out(x)


class ScriptedPart(nn.Module):
    """Has a submodule of TorchScript's."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(6, 16), nn.Linear(16, 3)
        self.act: Any = torch.jit.trace(nn.Sequential(nn.Hardtanh()), torch.zeros(2, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.act(self.enter(x)))
