"""Weights that are held, shared or computed in unusual ways."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations


def perceptron(inputs: int = 6, hidden: int = 16, classes: int = 3) -> nn.Sequential:
    """Return the plainest network."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def parametrized(how: Any) -> nn.Module:
    """Return a network whose linear layers are parametrized."""
    return nn.Sequential(how(nn.Linear(6, 16)), nn.ReLU(), how(nn.Linear(16, 16)), nn.ReLU(), nn.Linear(16, 3))


def weight_norm() -> nn.Module:
    """Direction and length of each row apart."""
    return parametrized(parametrizations.weight_norm)


def spectral_norm() -> nn.Module:
    """Divided by the largest singular value, with buffers that change in training."""
    return parametrized(parametrizations.spectral_norm)


def orthogonal() -> nn.Module:
    """Matrices that are kept orthogonal."""
    return parametrized(parametrizations.orthogonal)


class Shared(nn.Module):
    """One module called three times, and one registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.middle, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.again = self.middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.enter(x))
        for _ in range(2):
            x = x + F.relu(self.middle(x))
        return self.out(self.again(x))


class TiedAutoencoder(nn.Module):
    """Decodes with the encoder's transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.bias = nn.Linear(6, 4), nn.Parameter(torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


class BareMatrices(nn.Module):
    """Parameters without a layer, in `@` and `einsum`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 16) / math.sqrt(6))
        self.second = nn.Parameter(torch.randn(3, 16) / 4)
        self.bias = nn.Parameter(torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bh,ch->bc", F.relu(x @ self.first + self.bias), self.second)


class Experts(nn.Module):
    """A mixture of experts whose weights are one 3-D parameter, and a gate that picks two."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(6, count, bias=False)
        self.up = nn.Parameter(0.3 * torch.randn(count, 6, 8))
        self.down = nn.Parameter(0.3 * torch.randn(count, 8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best, chosen = self.gate(x).softmax(-1).topk(2)
        weights = torch.zeros(len(x), len(self.up)).scatter(1, chosen, best)
        hidden = F.relu(torch.einsum("bi,eih->beh", x, self.up))
        return torch.einsum("be,beh,eho->bo", weights, hidden, self.down)


class MyLinear(nn.Linear):
    """Somebody's subclass, which scales its outputs."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 0.5 * super().forward(input)


class ForeignLinear(nn.Module):
    """A linear layer that inherits from nothing that is known."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.kernel)


def subclassed() -> nn.Module:
    """Linear layers of a third party."""
    return nn.Sequential(MyLinear(6, 16), nn.ReLU(), ForeignLinear(16, 8), nn.ReLU(), MyLinear(8, 3))


class TransposedLinear(nn.Module):
    """GPT-2's `Conv1D`: a linear layer whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.3 * torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)


def transposed() -> nn.Module:
    """Weights with transposed axes."""
    return nn.Sequential(TransposedLinear(6, 16), nn.GELU(), TransposedLinear(16, 3))


class Bilinear(nn.Module):
    """`nn.Bilinear` of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(6, 5), nn.Linear(6, 4), nn.Bilinear(5, 4, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.both(F.relu(self.left(left)), F.relu(self.right(right)))


class Lora(nn.Linear):
    """A low-rank adapter that merges itself in evaluation mode, through an overridden `train()`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Parameter(0.3 * torch.randn(2, inputs)), nn.Parameter(0.1 * torch.randn(outputs, 2))
        self.merged = False

    def train(self, mode: bool = True) -> Any:
        if mode == self.merged:
            sign = -1 if self.merged else 1
            self.weight.data += sign * (self.b @ self.a).data
            self.merged = not self.merged
        return super().train(mode)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(input)
        return outputs if self.merged else outputs + input @ self.a.t() @ self.b.t()


def lora() -> nn.Module:
    """Linear layers with adapters."""
    return nn.Sequential(Lora(6, 16), nn.ReLU(), Lora(16, 3))


class Complex(nn.Module):
    """Complex weights; the absolute values are classified."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8, dtype=torch.complex64)
        self.weight = nn.Parameter(0.3 * torch.randn(3, 8, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.first(x.to(torch.complex64))) @ self.weight.t()).abs()


class Hypernetwork(nn.Module):
    """A network that writes the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(4))
        self.writer, self.out = nn.Linear(4, 6 * 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(F.linear(x, self.writer(self.code).view(8, 6))))


class Kan(nn.Module):
    """KAN-like: a learned function for each edge, on a grid of basis functions."""

    grid: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-3, 3, 5))
        self.first, self.second = (nn.Parameter(0.3 * torch.randn(*s)) for s in ((8, 6, 5), (3, 8, 5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in (self.first, self.second):
            x = torch.einsum("big,oig->bo", torch.exp(-((x[..., None] - self.grid) ** 2)), weight)
        return x


class BufferWeights(nn.Module):
    """A fixed random projection that no state dict holds, and Fourier features of it."""

    projection: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("projection", torch.randn(6, 8, generator=generator), persistent=False)
        self.hidden, self.out = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = x @ self.projection
        return self.out(F.relu(self.hidden(torch.cat([angles.sin(), angles.cos()], -1))))


class ScaledWeights(nn.Module):
    """Weight standardization and RMS norm: the weight is computed from its parameter in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.out = nn.Linear(6, 16), nn.RMSNorm(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.first.weight
        weight = weight / (weight.norm(dim=1, keepdim=True) + 1e-6)
        return self.out(self.norm(F.relu(F.linear(x, weight, self.first.bias))))


class ParameterList(nn.Module):
    """Weights in lists and dictionaries of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ParameterList([nn.Parameter(0.4 * torch.randn(6, 6)) for _ in range(2)])
        self.named = nn.ParameterDict({"out": nn.Parameter(0.4 * torch.randn(6, 3))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = x + torch.tanh(torch.matmul(x, step))
        return torch.mm(x, self.named["out"])
