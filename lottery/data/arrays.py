"""Arrays into tensors: scaling, layout and the checks that catch unusable data early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pruning.errors import DataError

_VALUES = np.arange(256)

# What `torch.aminmax` takes.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_images(value: np.ndarray[Any, Any], part: str) -> torch.Tensor:
    """Return uint8 images, [N, H, W], [N, C, H, W], [N, H, W, C] or flat [N, D], as uint8 [N, C, H, W] (or [N, D]).

    Raises:
        DataError: no examples, or another shape.

    >>> as_images(np.zeros((2, 5, 5, 3), np.uint8), "train").shape
    torch.Size([2, 3, 5, 5])
    """
    return _tensor(_channels_first(value), part, "inputs")


def standardizing(images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that makes uint8 images float32, standardized per channel by mean and deviation of these.

    >>> standardizing(torch.tensor([[0], [8]], dtype=torch.uint8))(torch.tensor([[12]], dtype=torch.uint8))
    tensor([[2.]])
    """
    mean, std = map(torch.from_numpy, _mean_and_deviation(images))

    def standardized(values: torch.Tensor) -> torch.Tensor:
        # In place, for a data set of images is large.
        return values.to(torch.float32).sub_(mean).div_(std)

    return standardized


def _mean_and_deviation(images: torch.Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean and deviation (1 at least) of each channel, from how often each of the 256 values is there."""
    channels = images.unbind(1) if images.ndim == 4 else [images]
    # PyTorch counts bytes as they are; NumPy makes them integers of eight bytes first.
    counts = np.stack([torch.bincount(values.reshape(-1), minlength=256).numpy() for values in channels])
    total = counts.sum(axis=1, keepdims=True)
    mean = (counts * _VALUES).sum(axis=1, keepdims=True) / total
    std = np.sqrt((counts * (_VALUES - mean) ** 2).sum(axis=1, keepdims=True) / total)
    shape = (1, len(channels), 1, 1) if images.ndim == 4 else (1,) * images.ndim
    return mean.reshape(shape).astype(np.float32), np.maximum(std, 1.0).reshape(shape).astype(np.float32)


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
    if tensor.is_floating_point() and not _is_finite(tensor):
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
        if not _is_finite(tensor):
            raise DataError(f"{part} labels hold values that are NaN or infinite")
        return tensor
    tensor = tensor.long()
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor.squeeze(1)
    return tensor


def _is_finite(tensor: torch.Tensor) -> bool:
    """Say whether no value is NaN or infinite; the smallest and the largest say so without memory for all."""
    if tensor.dtype not in _FLOATS or tensor.numel() == 0:
        return bool(torch.isfinite(tensor).all())
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


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
