"""A loss that stretches labels [N] over outputs [N, 1], and means N × N differences without a word."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pruning.errors import DataError


@contextlib.contextmanager
def noticing_broadcasts(outputs: Any, targets: Any, what: str = "the loss") -> Iterator[None]:
    """Refuse what runs in this block where it computes with outputs [N, 1] and labels [N] (or the reverse) as [N, N].

    It is noticed where outputs and labels themselves meet in one operation; a copy of one of them is not followed.

    Args:
        outputs: the outputs of the model; only a single tensor is watched.
        targets: labels; only a single tensor is watched.
        what: runs, as the sentence's subject.

    Raises:
        DataError: the shapes, and what to do.

    >>> with noticing_broadcasts(outputs := torch.ones(2, 1), targets := torch.ones(2)):  # doctest: +ELLIPSIS
    ...     (outputs - targets).sum()
    Traceback (most recent call last):
    pruning.errors.DataError: the loss computes with outputs (2, 1) and labels (2,) as (2, 2): ...
    """
    if not isinstance(outputs, torch.Tensor) or not isinstance(targets, torch.Tensor) or not _stretch(outputs, targets):
        yield
        return
    with warnings.catch_warnings(record=True) as said, _Meeting(outputs, targets) as meeting:
        warnings.simplefilter("always")
        yield
    for warning in said:
        if _SIZES not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if meeting.stretched or any(_SIZES in str(warning.message) for warning in said):
        raise DataError(
            f"{what} computes with outputs {tuple(outputs.shape)} and labels {tuple(targets.shape)} as "
            f"{tuple(torch.broadcast_shapes(outputs.shape, targets.shape))}: give both one shape, with "
            f"{'outputs' if outputs.dim() > targets.dim() else 'targets'}.squeeze(-1)"
        )


# What PyTorch's own losses of differences say.
_SIZES = "Using a target size"


def _stretch(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two shapes differ by an axis of 1 at the end alone, where that matters."""
    short, long = sorted((tuple(one.shape), tuple(other.shape)), key=len)
    return long == (*short, 1) and bool(short) and short[-1] > 1


class _Meeting(TorchFunctionMode):
    """Sees whether two tensors are arguments of one operation whose result has the shape of both together."""

    def __init__(self, one: torch.Tensor, other: torch.Tensor) -> None:
        super().__init__()
        self._pair = (one, other)
        self._shape = torch.broadcast_shapes(one.shape, other.shape)
        self.stretched = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [*args, *(kwargs or {}).values()]
        met = all(any(value is tensor for value in given) for tensor in self._pair)
        if met and isinstance(result, torch.Tensor) and result.shape == self._shape:
            self.stretched = True
        return result
