"""The settings that all trainings of one search by gradient descent share, alone or stacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from lottery.data.parts import Parts
from lottery.networks.objectives.objective import Objective
from lottery.trainers.factors import Factors
from lottery.trainers.gd.chain.chain import Chain
from lottery.trainers.gd.chain.paths import Rates
from lottery.trainers.gd.config import GDConfig
from pruning.alive_rows import Rows
from pruning.watch import Watch


class GDFrame(Protocol):
    """Settings, data and progress report of the trainings; the same for every job."""

    @property
    def model(self) -> nn.Module:
        """The architecture; its weights are never used nor changed."""
        ...

    @property
    def parts(self) -> Parts:
        """The data, on the device."""
        ...

    @property
    def objective(self) -> Objective:
        """Loss and metric."""
        ...

    @property
    def config(self) -> GDConfig:
        """How to train."""
        ...

    @property
    def factors(self) -> Factors:
        """By what the learning rates of single tensors are multiplied."""
        ...

    @property
    def total_steps(self) -> int:
        """Steps of a whole training, the length of the learning-rate schedule."""
        ...

    @property
    def chain(self) -> Chain | None:
        """Compiled steps that take the trainings; None where PyTorch's operations do."""
        ...

    @property
    def rates(self) -> Rates | None:
        """By which layers of other networks train sparse or dense; None where all are dense."""
        ...

    @property
    def threads(self) -> int:
        """How many CPU threads a training may use."""
        ...

    @property
    def device(self) -> torch.device:
        """Where to train."""
        ...

    @property
    def watch(self) -> Watch:
        """Receives progress."""
        ...

    @property
    def rows(self) -> Rows:
        """Of tensors whose rows a moving mask must not empty, the axes that number them."""
        ...

    @property
    def tell(self) -> Callable[[str], None]:
        """Says a line for people once, however often it is called."""
        ...
