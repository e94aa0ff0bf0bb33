"""Loads a compacted network: neurons, channels and inputs that no weight reaches are gone. Needs PyTorch alone.

from load import load

model = load()
y = model(x)        # any batch size; evaluation mode, for good
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch


def load(folder: str | Path = Path(__file__).parent) -> torch.nn.Module:
    """Return the network as a module in evaluation mode; inputs are shaped as its examples were, any number of them."""
    with warnings.catch_warnings():
        # PyTorch 2.11 says once a process that it reads weights from bytes; they are this network's alone.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.export.load(Path(folder) / "model.pt2").module()
