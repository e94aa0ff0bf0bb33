"""Augmentations of image batches, on the device where the batch lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from pruning.errors import DataError


def none(inputs: Any) -> Any:
    """Return the batch as it is."""
    return inputs


def flip_crop(inputs: Any) -> Any:
    """Flip each image at random and shift it by up to 4 pixels (pad and crop), as for CIFAR in He et al. (2016).

    Args:
        inputs: [N, C, H, W]. The random numbers come from torch's CPU generator.

    >>> flip_crop(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 4:
        raise DataError("augment 'flip-crop' needs images of shape [N, C, H, W]")
    count, _, height, width = inputs.shape
    flip = (torch.rand(count) < 0.5).to(inputs.device)
    top, left = (torch.randint(0, 9, (count, 1)).to(inputs.device) for _ in range(2))
    padded = F.pad(inputs, (4, 4, 4, 4))
    rows = top + torch.arange(height, device=inputs.device)
    columns = torch.arange(width, device=inputs.device)
    columns = left + torch.where(flip[:, None], columns.flip(0), columns)
    index = torch.arange(count, device=inputs.device)[:, None, None]
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[[Any], Any]] = {"none": none, "flip-crop": flip_crop}
