"""Whether two ways to compute a network gave the same, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_HALVES = (torch.float16, torch.bfloat16)
# By how much halves round more.
_OF_HALVES = 5
# Some gradients are 0 but for rounding (a bias before batch norm): they are measured by the largest one.
_NOTHING = 1e-4


def same_up_to_rounding(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], rounding: float) -> bool:
    """Say whether tensors differ by no more than this, measured by their size and by the largest of them.

    >>> one = torch.ones(3)
    >>> same_up_to_rounding([one], [one + 1e-6], 0.01), same_up_to_rounding([one], [2 * one], 0.01)
    (True, False)
    """
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        return False
    sizes = [_norm(each) for each in ours]
    apart = [_norm(_wide(one) - _wide(other)) for one, other in zip(ours, theirs, strict=True)]
    far = [rounding * (_OF_HALVES if each.dtype in _HALVES else 1) for each in ours]
    nothing = _NOTHING * max(sizes, default=0.0)
    return all(gap <= much * size + nothing for gap, much, size in zip(apart, far, sizes, strict=True))


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(_wide(tensor)))
