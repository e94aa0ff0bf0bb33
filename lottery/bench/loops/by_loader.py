"""An epoch of LeNet-300-100 as reference implementations of the field train it: a `DataLoader`, item by item.

Each function trains under a mask, evaluates the test images the same way, and returns the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lottery.bench.loops.lenet import BATCH, LR, Case
from lottery.data.parts import Tensors
from lottery.state.tensors import load_state
from pruning.torch_modules import apply_mask


class OneImageAtATime(Dataset[Any]):
    """Images that are opened, turned into a tensor and standardized one by one, as torchvision's transforms do it.

    OpenLTH reads its data so (`datasets/base.py`), and so do most loops with torchvision.

    Args:
        images: bytes [N, H, W].
        labels: whole numbers [N].
    """

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self._images, self._labels = images, labels
        self._mean, self._std = torch.tensor([0.1307]), torch.tensor([0.3081])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self._images[index])
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(*image.size[::-1], 1)
        tensor = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        standardized = tensor.clone().sub_(self._mean.view(-1, 1, 1)).div_(self._std.view(-1, 1, 1))
        return standardized, int(self._labels[index])


def images_of(part: Tensors) -> OneImageAtATime:
    """Return the images of a part as bytes, to be read one at a time; their contrast is stretched to all bytes."""
    inputs = part.inputs.cpu().flatten(0, 1) if part.inputs.dim() == 4 else part.inputs.cpu()
    low, high = inputs.min(), inputs.max()
    return OneImageAtATime(((inputs - low) / (high - low) * 255).to(torch.uint8).numpy(), part.targets.cpu().numpy())


def one_image_at_a_time(case: Case, density: float) -> Callable[[], float]:
    """Return an epoch whose images are read one by one, and whose weights are masked before each forward pass."""
    train, test = _parts(case)
    given = images_of(train), images_of(test)
    return lambda: _epoch(case, density, given)


def by_tensors(case: Case, density: float) -> Callable[[], float]:
    """Return an epoch on tensors that are standardized already."""
    train, test = _parts(case)
    given = TensorDataset(train.inputs, train.targets), TensorDataset(test.inputs, test.targets)
    return lambda: _epoch(case, density, given)


def _parts(case: Case) -> tuple[Tensors, Tensors]:
    assert isinstance(case.parts.train, Tensors)
    assert isinstance(case.parts.test, Tensors)
    return case.parts.train, case.parts.test


def _epoch(case: Case, density: float, given: Sequence[Dataset[Any]]) -> float:
    device = torch.device("cpu" if case.setup.device == "cpu" else "cuda")
    job = case.thinned(density)
    model = case.source.build(0)
    load_state(model, job.params)
    model = apply_mask(model, job.mask).to(device)
    keeps = {name: torch.from_numpy(keep.astype(np.float32)).to(device) for name, keep in job.mask.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    train, test = given

    def masked() -> None:
        for name, parameter in model.named_parameters():
            if name in keeps:
                parameter.data *= keeps[name]

    began = time.perf_counter()
    for inputs, targets in DataLoader(train, BATCH, shuffle=True):
        optimizer.zero_grad()
        model.train()
        masked()
        F.cross_entropy(model(inputs.to(device)), targets.to(device)).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        masked()
        for inputs, targets in DataLoader(test, BATCH):
            (model(inputs.to(device)).argmax(1) == targets.to(device)).sum().item()
    return time.perf_counter() - began
