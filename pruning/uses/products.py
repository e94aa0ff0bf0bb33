"""The operations of PyTorch that multiply and sum up: their operands, along which axes, how much work it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pruning.uses.places import base_name


@dataclass(frozen=True)
class Factor:
    """One operand of a product.

    Attributes:
        tensor: the operand.
        summed: its dimensions that the product sums over; all others number outputs (or what is stacked).
        taps: its dimensions that are neither: positions of a kernel.
        partner: the operand that it is multiplied with.
        share: of the product's work, in which this operand has a part.
    """

    tensor: torch.Tensor
    summed: tuple[int, ...]
    partner: torch.Tensor
    taps: tuple[int, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Product:
    """A product of two or more tensors.

    Attributes:
        factors: its operands.
        work: multiplications that it takes.
    """

    factors: tuple[Factor, ...]
    work: float


# Where the two matrices are among the arguments.
MATRICES = {"mm": 0, "addmm": 1, "_addmm_activation": 1, "bmm": 0, "baddbmm": 1, "addbmm": 1, "mv": 0, "addmv": 1}
_RECURRENT = frozenset({"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"})
CONVOLUTIONS = frozenset({"convolution", "_convolution", "convolution_overrideable"})


def product_of(operation: Any, arguments: Sequence[Any], result: Any) -> Product | None:
    """Return the product that an operation computes; None where it is no known product.

    Args:
        operation: of `torch.ops.aten`.
        arguments: the positional arguments of the call.
        result: the result of the operation.

    >>> x, w = torch.ones(5, 3), torch.ones(3, 4)
    >>> product = product_of(torch.ops.aten.mm.default, (x, w), x @ w)
    >>> product.factors[1].summed, product.work
    ((-2,), 60.0)
    """
    name = base_name(operation)
    made = result if isinstance(result, torch.Tensor) else result[0] if isinstance(result, tuple | list) else None
    if not isinstance(made, torch.Tensor):
        return None
    if name in MATRICES:
        one, other = arguments[MATRICES[name] : MATRICES[name] + 2]
        batches = one.shape[0] if name == "addbmm" else 1  # its result is the sum over them
        return _of(one, (-1,), other, (-1,) if other.ndim == 1 else (-2,), made.numel() * batches)
    if name in ("linear", "_grouped_mm"):
        one, other = arguments[:2]
        return _of(one, (-1,), other, (-1,) if name == "linear" else (-2,), made.numel())
    if name in CONVOLUTIONS:
        one, weight = arguments[:2]
        places = (one if arguments[6] else made).numel()  # a transposed one multiplies at every place of its input
        taps = tuple(range(2, weight.ndim))
        factors = Factor(weight, (0,) if arguments[6] else (1,), one, taps), Factor(one, (1,), weight, taps)
        return Product(factors, float(places * math.prod(weight.shape[1:])))
    if name.startswith("_scaled_dot_product"):
        query, key, value = arguments[:3]
        work = float(query.numel() * key.shape[-2] + query[..., 0].numel() * key.shape[-2] * value.shape[-1])
        return Product((Factor(query, (-1,), key), Factor(key, (-1,), query), Factor(value, (-2,), query)), work)
    if name == "_trilinear":
        one, weight, other = arguments[:3]
        work = float(made.shape[0] * weight.numel())
        return Product((Factor(weight, (1, 2), one), Factor(one, (-1,), weight), Factor(other, (-1,), weight)), work)
    if name in _RECURRENT:
        given = arguments[0]
        listed = arguments[1:3] if name == "mkldnn_rnn_layer" else arguments[1]
        weights = [tensor for tensor in listed if tensor.ndim == 2]
        whole = sum(weight.numel() for weight in weights)
        factors = tuple(Factor(w, (1,), given, share=w.numel() / max(1, whole)) for w in weights)
        return Product(factors, float(given[..., 0].numel() * whole))
    return None


def _of(one: torch.Tensor, summed: tuple[int], other: torch.Tensor, over: tuple[int], results: int) -> Product:
    factors = Factor(one, summed, other), Factor(other, over, one)
    return Product(factors, float(results * one.shape[summed[0]]))
