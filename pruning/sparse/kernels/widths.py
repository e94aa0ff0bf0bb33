"""How many examples lie side by side in memory: enough for aligned loads of 16 bytes, not many more than there are."""

from __future__ import annotations

import math

import torch


def power_of_two(number: float) -> int:
    """Return the smallest power of two that is not below a number, at least 1.

    >>> [power_of_two(n) for n in (0, 1, 3, 4.5)]
    [1, 1, 4, 8]
    """
    return 1 << max(0, math.ceil(number) - 1).bit_length()


def padded_width(batch: int, least: int = 1) -> int:
    """Return a batch rounded up: below 16 to a power of two of at least `least`, from there on to a multiple of 16.

    A kernel that knows all rows to begin at such multiples loads them as vectors. A batch of 1 to 8 stays small: there
    the weights are what must be read, and idle examples would cost as much as real ones.

    >>> [padded_width(batch) for batch in (0, 1, 3, 8, 9, 16, 17, 100)], padded_width(3, least=16)
    ([0, 1, 4, 8, 16, 16, 32, 112], 16)
    """
    if not batch:
        return 0
    return max(power_of_two(batch), least) if batch <= 8 else -(-batch // 16) * 16


def alignment(width: int) -> int:
    """Return the power of two, at most 16, that divides a width made by `padded_width`."""
    return min(width, 16)


def padded(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Return a tensor [..., B] as [..., width], contiguous and from an address that vectors can be loaded from.

    The tensor itself where it is so already; a copy otherwise, with zeros where there are no examples.

    >>> padded(torch.ones(1, 1).expand(2, 3), 4).tolist()
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    """
    if tensor.shape[-1] == width and tensor.is_contiguous() and tensor.data_ptr() % 16 == 0:
        return tensor
    copy = tensor.new_empty(*tensor.shape[:-1], width)
    copy[..., : tensor.shape[-1]] = tensor
    copy[..., tensor.shape[-1] :] = 0
    return copy


def on_its_own(view: torch.Tensor) -> torch.Tensor:
    """Return the memory of a view as a tensor of its own, which autograd allows to be changed in place.

    >>> on_its_own(torch.ones(2, 4)[:, :3])._is_view()
    False
    """
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.size(), view.stride())
