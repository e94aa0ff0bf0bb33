"""What every weight is multiplied by in a forward pass of PyTorch, whatever layer or function it is in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pruning.uses.following import Following
from pruning.uses.places import Places, base_name
from pruning.uses.products import CONVOLUTIONS, MATRICES, Factor


class Multiplied(Following):
    """Follows a forward pass, and sums up the squares of the activations that each element of a weight meets.

    Where a product takes something that is made of a weight and is no copy of it (a normalized weight), what it is made
    larger or smaller by on the way counts too: |w| times the root is always the size of what the product adds.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], inputs: Iterable[torch.Tensor]) -> None:
        super().__init__(weights, inputs)
        self._squares: dict[str, torch.Tensor] = {}
        self._unknown: dict[str, str] = {}

    def norms(self, name: str) -> torch.Tensor | None:
        """Return ‖x‖₂ of what each element of a weight is multiplied by, in float64; None where `why_not` says why."""
        known = name in self._squares and name not in self._unknown
        return self._squares[name].view(self._weights[name].shape).sqrt() if known else None

    def why_not(self, name: str) -> str:
        """Return, in words, why the uses of a weight are unknown."""
        if name in self._unknown:
            return f"the operation {self._unknown[name]} does not show what it multiplies it by"
        return self._why(name)

    def _met(self, func: Any, args: Sequence[Any], factor: Factor, places: Places) -> None:
        squares = squares_met(func, args, factor)
        for origin, coordinates in places.items():
            if squares is None:
                self._unknown[origin.name] = base_name(func)
                continue
            weight = self._weights[origin.name].detach().contiguous().view(-1)
            index, inside = _flat(coordinates, self._weights[origin.name].shape)
            grown = squares * _growth(factor.tensor.detach(), weight[index])
            total = self._squares.setdefault(origin.name, torch.zeros_like(weight, dtype=torch.float64))
            total.index_add_(0, index.reshape(-1), (grown * inside).reshape(-1))


def squares_met(operation: Any, arguments: Sequence[Any], factor: Factor) -> torch.Tensor | None:
    """Return Σ x² over what each element of a factor is multiplied by, in its shape; None where that is unknown.

    Args:
        operation: of `torch.ops.aten`.
        arguments: the positional arguments of the call.
        factor: one operand of the product.

    >>> x, w = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.ones(2, 1)
    >>> squares_met(torch.ops.aten.mm.default, (x, w), Factor(w, (-2,), x)).tolist()
    [[10.0], [4.0]]
    """
    name, one, shape = base_name(operation), factor.tensor, factor.tensor.shape
    if name in MATRICES:
        first, second = arguments[MATRICES[name] : MATRICES[name] + 2]
        if one is second:
            met = _squares(first).sum(-2)
            return met if second.ndim == 1 else met.unsqueeze(-1).expand(shape)
        met = _squares(second)
        return (met if second.ndim == 1 else met.sum(-1)).unsqueeze(-2).expand(shape)
    if name == "linear" and one is arguments[1]:
        return _squares(arguments[0]).reshape(-1, shape[-1]).sum(0).expand(shape)
    if name == "_grouped_mm" and one is arguments[1] and one.ndim == 3 and arguments[0].ndim == 2:
        ends = [0, *arguments[2].tolist()]
        parts = [_squares(arguments[0][a:b]).sum(0) for a, b in itertools.pairwise(ends)]
        return torch.stack(parts).unsqueeze(-1).expand(shape)
    if name in CONVOLUTIONS and one is arguments[1]:
        return _in_convolution(arguments)
    if name == "_trilinear" and one is arguments[1]:  # [outputs, one, other], of a bilinear layer
        left, right = (_squares(t).reshape(-1, t.shape[-1]) for t in (arguments[0], arguments[2]))
        return (left.T @ right).expand(shape) if one.ndim == 3 else None
    if name.startswith("_scaled_dot_product") and one is not arguments[2]:
        other = arguments[1] if one is arguments[0] else arguments[0]
        return _squares(other).sum(-2, keepdim=True).expand(shape) if other.shape[:-2] == shape[:-2] else None
    return None


def _in_convolution(arguments: Sequence[Any]) -> torch.Tensor:
    """A convolution is linear in its weight: on squares, the derivative of the sum of its results is what is asked."""
    squares, weight = _squares(arguments[0]), arguments[1]
    like = torch.zeros(weight.shape, dtype=squares.dtype, device=weight.device)
    results = torch.ops.aten.convolution.default(squares, like, None, *arguments[3:9])
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward.default(
        torch.ones_like(results), squares, like, None, *arguments[3:9], mask
    )[1]


def _squares(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.abs() if tensor.is_complex() else tensor).double().square()


def _growth(made: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the square of a computed weight over the square of the given one; 1 where that is 0."""
    if made.dtype == weight.dtype and torch.equal(made, weight):
        return torch.ones((), dtype=torch.float64, device=weight.device)
    below = _squares(weight)
    return torch.where(below > 0, _squares(made) / below, 1.0)


def _flat(coordinates: Sequence[torch.Tensor], shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where elements lie in the weight, counted along its axes, and which do lie in it."""
    index = torch.zeros_like(coordinates[0], dtype=torch.int64)
    for coordinate, size in zip(coordinates, shape, strict=True):
        index = index * size + coordinate
    inside = torch.stack([coordinate >= 0 for coordinate in coordinates]).all(0)
    return index.where(inside, 0), inside
