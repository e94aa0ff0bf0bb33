"""Learning rates as tensors on the device: a recorded step reads the rate of the step, not that of its recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer


@dataclass
class DeviceRates:
    """The learning rates of an optimizer's groups, in tensors that stay where they lie.

    Attributes:
        groups: of the optimizer.
        held: a float32 scalar for each.
        values: what they hold now.
    """

    groups: Sequence[dict[str, Any]]
    held: Sequence[torch.Tensor]
    values: list[float | None]

    def hold(self) -> None:
        """Move the rates that were written into the groups as numbers into the tensors.

        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        >>> rates = device_rates(optimizer, torch.device("cpu"))
        >>> rates.hold()
        >>> first = optimizer.param_groups[0]["lr"]
        >>> optimizer.param_groups[0]["lr"] = 0.25
        >>> rates.hold()
        >>> optimizer.param_groups[0]["lr"] is first, first.item()
        (True, 0.25)
        """
        for place, (group, tensor) in enumerate(zip(self.groups, self.held, strict=True)):
            if group["lr"] is not tensor:
                if group["lr"] != self.values[place]:
                    tensor.fill_(group["lr"])
                    self.values[place] = group["lr"]
                group["lr"] = tensor


def device_rates(optimizer: Optimizer, device: torch.device) -> DeviceRates:
    """Return tensors for the learning rates of an optimizer, which can then be recorded."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    held = [torch.zeros((), device=device) for _ in optimizer.param_groups]
    return DeviceRates(optimizer.param_groups, held, [None] * len(held))
