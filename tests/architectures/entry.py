"""One architecture of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lottery.data import Data


@dataclass(frozen=True)
class Architecture:
    """A network as somebody might bring it, with data and whatever else they would hand over.

    Attributes:
        name: in the table.
        make: returns the module; the global seed is set before.
        data: returns the data, in the form in which people have it.
        loss: of their own, or None for the toolkit's.
        metric: likewise.
        resizable: whether it runs on other batch sizes than that of its data.
        draws: its outputs in evaluation mode are random.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    loss: Any = None
    metric: Any = None
    resizable: bool = True
    draws: bool = False

    def model(self) -> nn.Module:
        """Return the network with the same weights each time."""
        torch.manual_seed(0)
        return self.make()
