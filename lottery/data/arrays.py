"""Arrays into tensors: scaling, layout and the checks that catch unusable data early."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pruning.errors import DataError


def scale_images(train: np.ndarray[Any, Any], *others: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return uint8 images as float32, standardized per channel with the training part's mean and deviation.

    Args:
        train: [N, H, W], [N, C, H, W], [N, H, W, C] or flat [N, D] uint8; gives the mean and the standard deviation.
        others: further parts in the same layout.

    Returns:
        Every part as [N, C, H, W] (or [N, D]) float32.

    >>> [part.tolist() for part in scale_images(np.array([[0, 4]], np.uint8), np.array([[2, 6]], np.uint8))]
    [[[-1.0, 1.0]], [[0.0, 2.0]]]
    """
    first, *rest = [_channels_first(part) for part in (train, *others)]
    axes = (0, 2, 3) if first.ndim == 4 else None
    mean = first.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    std = np.maximum(first.std(axis=axes, keepdims=True, dtype=np.float64), 1.0).astype(np.float32)
    return [(part.astype(np.float32) - mean) / std for part in (first, *rest)]


def as_inputs(value: Any, part: str) -> torch.Tensor:
    """Return inputs as a tensor of their own type: floats, or integers (token ids).

    Raises:
        DataError: no examples, a dtype without numbers, NaN or infinities.

    >>> as_inputs(np.array([[0.5, 2.0]], np.float32), "training")
    tensor([[0.5000, 2.0000]])
    """
    tensor = _tensor(value, part, "inputs")
    if tensor.dtype == torch.uint8:
        raise DataError(f"{part} inputs are uint8 images and other parts are not: give all parts alike")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise DataError(f"{part} inputs hold {bad:,} values that are NaN or infinite")
    return tensor


def as_targets(value: Any, part: str) -> torch.Tensor:
    """Return targets as a tensor: integers become int64, [N, 1] integers [N]; floats and bools stay.

    Raises:
        DataError: no examples, NaN or infinities.

    >>> as_targets(np.array([[1], [0]], np.int32), "training")
    tensor([1, 0])
    """
    tensor = _tensor(value, part, "labels")
    if tensor.dtype == torch.bool:
        return tensor
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{part} labels hold values that are NaN or infinite")
        return tensor
    tensor = tensor.long()
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor.squeeze(1)
    return tensor


def _tensor(value: Any, part: str, what: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor) and value.layout != torch.strided:
        raise DataError(f"{part} {what} are a sparse tensor; give a dense one (`.to_dense()`)")
    if np.ma.is_masked(value):
        raise DataError(f"{part} {what} hold masked values; fill them (`.filled(…)`) or leave those examples out")
    try:
        array = _usable(value) if isinstance(value, torch.Tensor) else torch.from_numpy(_native(np.array(value)))
    except (TypeError, ValueError) as error:
        raise DataError(f"{part} {what} are not numbers ({error})") from error
    if array.dim() == 0 or array.shape[0] == 0:
        raise DataError(f"{part} {what} hold no examples")
    return array


def _usable(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as autograd can take it: one that was made in inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _channels_first(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim not in (2, 4):
        raise DataError(f"uint8 inputs of shape {images.shape} are not images: expected [N, H, W] or [N, C, H, W]")
    if images.ndim == 2:
        return images
    if images.shape[1] not in (1, 3, 4) and images.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array in this machine's byte order, the only one that torch knows."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
