"""The one place where a PyTorch module is masked."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import nn

from pruning.masks.fitting import Keeps, fitted

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def apply_mask(model: ModuleT, mask: Keeps) -> ModuleT:
    """Set the removed weights of `model` to 0, in place, and return it.

    Raises:
        MaskMismatch: names or shapes that do not fit (with the closest names).

    >>> layer = apply_mask(nn.Linear(2, 1), {"weight": np.array([[True, False]])})
    >>> layer.weight[0, 1].item()
    0.0
    """
    parameters = dict(model.named_parameters())
    keeps = fitted(mask, {name: tuple(p.shape) for name, p in parameters.items()})
    with torch.no_grad():
        for name, keep in keeps.items():
            removed = torch.from_numpy(np.asarray(~keep)).to(parameters[name].device)
            parameters[name].masked_fill_(removed, 0.0)
    return model
