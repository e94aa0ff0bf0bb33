"""Loads a network that was pruned with `torch.nn.utils.prune`. Needs PyTorch and your model's code.

from load import load

model = load(MyModel())             # `weight` is computed as weight_orig * weight_mask in each forward pass
prune.remove(model.fc1, "weight")   # torch.nn.utils.prune: makes it permanent, one tensor at a time
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import prune

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load(model: ModuleT, folder: str | Path = Path(__file__).parent) -> ModuleT:
    """Prune a fresh, unpruned model, give it the stored values (strictly), and return it. Changes it in place."""
    state = torch.load(Path(folder) / "state_dict.pt", map_location="cpu", weights_only=True)
    for key in state:
        name = key.removesuffix("_mask")
        if name != key and f"{name}_orig" in state:
            owner, _, attribute = name.rpartition(".")
            prune.custom_from_mask(model.get_submodule(owner), attribute, state[key])
    model.load_state_dict(state)
    return model
