"""Loads a compacted network: neurons, channels and inputs that no weight reaches are gone. Needs PyTorch alone.

from load import load

model = load()
y = model(x)        # any batch size; evaluation mode, for good
"""

from __future__ import annotations

from pathlib import Path

import torch


def load(folder: str | Path = Path(__file__).parent) -> torch.nn.Module:
    """Return the network as a module in evaluation mode; inputs are shaped as its examples were, any number of them."""
    return torch.export.load(Path(folder) / "model.pt2").module()
