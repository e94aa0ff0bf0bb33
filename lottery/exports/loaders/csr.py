"""Loads a network whose masked weights are stored as compressed sparse rows. Needs PyTorch, and your model's code.

    from load import load, read

    model = load(MyModel())             # the same network, dense again
    csr = read()["fc1.weight"]          # torch.sparse_csr, [out, in], int32 indices
    y = (csr @ x.T).T                   # x [batch, in], y [batch, out]: the product without the removed weights

The weight of a convolution [out, in, height, width] is a matrix [out, in * height * width]; its own shape stands beside
it, under its name and `.shape`. Multiply it by the unfolded input: `csr @ torch.nn.functional.unfold(image, kernel)`
for one image [1, in, H, W] (`.squeeze(0)`). A weight that survived at 0 is stored like any other.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def read(folder: str | Path = Path(__file__).parent) -> dict[str, Any]:
    """Return the stored tensors by name: compressed rows where there is a mask, dense elsewhere."""
    with warnings.catch_warnings():
        # PyTorch says once a process that the layout is in beta, and that its invariants go unchecked; 2.14 says that
        # they are checked here.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        warnings.filterwarnings("ignore", message="Validating sparse tensor invariants")
        return torch.load(Path(folder) / "state_dict.pt", map_location="cpu", weights_only=True)


def load(model: ModuleT, folder: str | Path = Path(__file__).parent) -> ModuleT:
    """Give a model the stored values (strictly), dense, and return it. Changes it in place.

    The values are those of evaluation mode: a model that has a `train()` or `eval()` of its own, which may merge
    adapters into weights, is put into that mode first and stays in it.
    """
    if any(_switches_by_itself(part) for part in model.modules()):
        model.eval()
    stored = read(folder)
    tensors = {name: value for name, value in stored.items() if isinstance(value, torch.Tensor)}
    sparse = {name for name, value in tensors.items() if value.layout == torch.sparse_csr}
    shapes = {name: stored.pop(f"{name}.shape").tolist() for name in sparse if f"{name}.shape" in stored}
    for name in sparse:
        dense = stored[name].to_dense()
        stored[name] = dense.reshape(shapes.get(name, dense.shape))
    model.load_state_dict(stored)  # what is no tensor is a module's extra state
    return model


def _switches_by_itself(part: nn.Module) -> bool:
    own = (type(part).train, type(part).eval) != (nn.Module.train, nn.Module.eval)
    return own or not vars(part).keys().isdisjoint(("train", "eval"))
