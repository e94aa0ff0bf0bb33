"""Networks with unusual batches and unusual results."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tests.architectures.modules.control import Base
from tests.architectures.modules.weights import perceptron


class NamedDictionary(nn.Module):
    """Takes a dictionary by its names and returns one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, values: torch.Tensor, scale: torch.Tensor, label: torch.Tensor | None = None) -> Any:
        del label
        return {"logits": self.second(torch.relu(self.first(values * scale))), "hidden": None}


@dataclasses.dataclass
class Answer:
    """What some models return."""

    logits: torch.Tensor
    features: torch.Tensor | None = None


class ReturnsDataclass(Base):
    """Returns a dataclass."""

    def forward(self, x: torch.Tensor) -> Answer:
        features = self.hidden(x)
        return Answer(self.second(features), features)


class Pair(NamedTuple):
    """Two results by name."""

    logits: torch.Tensor
    embedding: torch.Tensor


class ReturnsNamedTuple(Base):
    """Returns a named tuple."""

    def forward(self, x: torch.Tensor) -> Pair:
        features = self.hidden(x)
        return Pair(self.second(features), features)


class AuxiliaryInTraining(Base):
    """A tuple in training and a tensor in evaluation, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> Any:
        features = self.hidden(x)
        outputs = self.second(features)
        return (outputs, self.auxiliary(features)) if self.training else outputs


class MixtureDensity(nn.Module):
    """Returns a distribution; its loss is the log-likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.weights, self.means, self.scales = (
            nn.Sequential(nn.Linear(6, 16), nn.Tanh()), nn.Linear(16, 3), nn.Linear(16, 3), nn.Linear(16, 3)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.distributions.Distribution:
        body = self.body(x)
        parts = torch.distributions.Normal(self.means(body), self.scales(body).exp())
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=self.weights(body)), parts)


class Siamese(nn.Module):
    """One network for two inputs; their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron(6, 16, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (self.body(left) - self.body(right)).square().sum(-1)


class Heads(Base):
    """A class and a value at once, in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.hidden(x)
        return self.second(features), self.value(features).squeeze(-1)


class GraphConvolution(nn.Module):
    """Messages along the edges of a batch of graphs, which is an object."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.others, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, batch: Any) -> torch.Tensor:
        senders, receivers = batch.edges
        messages = torch.zeros(len(batch.x), 8).index_add(0, receivers, self.others(batch.x)[senders])
        nodes = F.relu(self.own(batch.x) + messages)
        return self.out(torch.zeros(batch.num_graphs, 8).index_add(0, batch.graph, nodes))


class Contrastive(nn.Module):
    """Two views, projected and normalized; every pair of the batch is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = perceptron(6, 16, 4), nn.Parameter(torch.tensor(1.0))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        left, right = (F.normalize(self.body(each), dim=-1) for each in (left, right))
        return self.scale.exp() * left @ right.t()
