"""Complex weights of PyTorch where real numbers are asked for: each is two of them, its halves.

PyTorch's gradient of a complex weight is ∂L/∂Re w + i ∂L/∂Im w.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pruning.errors import BadValue


def halves(tensor: torch.Tensor) -> torch.Tensor:
    """Return a complex tensor as a real one with the two halves along a last axis; a real one as it is.

    >>> halves(torch.tensor([3 - 4j])).tolist()
    [[3.0, -4.0]]
    """
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def real_product(gradient: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return Σ Re(ḡ·δ): the scalar product of both as vectors of real numbers.

    >>> real_product(torch.tensor([3 - 4j]), torch.tensor([1 + 1j])).item()
    -1.0
    """
    if gradient.is_complex() or step.is_complex():
        return (gradient.conj() * step).real.sum()
    return (gradient * step).sum()


def require_real(what: str, weights: Mapping[str, torch.Tensor], instead: str) -> None:
    """Raise `BadValue` for the first of these weights that is complex.

    >>> require_real("the flow", {"w": torch.ones(1)}, "snip")
    """
    for name, weight in weights.items():
        if weight.is_complex():
            raise BadValue(f"{what} is one of real weights, and {name!r} is complex; use {instead}, or magnitude")
