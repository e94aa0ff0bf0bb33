"""Loads a network whose weights are masked by `torch.nn.utils.parametrize`. Needs PyTorch and your model's code.

    from load import load

    model = load(MyModel())     # `model.fc1.weight` is the masked weight, wherever it is read

Training keeps the mask: gradients reach surviving weights only. To make it permanent, one tensor at a time:
`torch.nn.utils.parametrize.remove_parametrizations(model.fc1, "weight")`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Masked(nn.Module):
    """A weight with 0 wherever its boolean mask is False."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the masked weight."""
        return torch.where(self.mask, weight, torch.zeros_like(weight))


def load(model: ModuleT, folder: str | Path = Path(__file__).parent) -> ModuleT:
    """Mask a fresh model, give it the stored values (strictly), and return it. Changes it in place."""
    state = torch.load(Path(folder) / "state_dict.pt", map_location="cpu", weights_only=True)
    for key in state:
        # fc1.parametrizations.weight.0.mask; the dot in front lets the model itself own the weight.
        owner, found, attribute = f".{key.removesuffix('.0.mask')}".rpartition(".parametrizations.")
        if found and key.endswith(".0.mask"):
            layer = model.get_submodule(owner.removeprefix("."))
            parametrize.register_parametrization(layer, attribute, Masked(state[key].clone()))
    model.load_state_dict(state)
    return model
