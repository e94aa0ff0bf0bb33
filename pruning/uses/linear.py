"""Linear layers of any class: a module is recognized by how it uses its weight."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pruning.uses.operations import Operations

# A product of these alone, with one factor that is a parameter, is linear in the other for every input.
_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "aten::linear"})
_SHAPES = ("t", "transpose", "permute", "view", "_unsafe_view", "reshape", "expand", "squeeze", "unsqueeze")
_ALLOWED = _PRODUCTS | {f"aten::{name}" for name in _SHAPES} | {"aten::add", "aten::detach", "aten::alias"}

# What a class may do otherwise than all modules do.
_OWN = ("__call__", "train", "_apply", "get_extra_state", "set_extra_state", "state_dict", "_save_to_state_dict")
_OWN += ("load_state_dict", "_load_from_state_dict")


@dataclass(frozen=True)
class LinearUse:
    """What a module does: inputs [..., in] · Wᵀ + bias.

    Attributes:
        weight: the name of its weight.
        bias: the name of its bias, or None.
        turned: whether the weight is stored [in, out].
    """

    weight: str
    bias: str | None
    turned: bool

    def matrix(self, layer: nn.Module) -> torch.Tensor:
        """Return the weight [out, in]."""
        weight = layer.get_parameter(self.weight)
        return weight.t() if self.turned else weight


def linear_use(layer: nn.Module) -> LinearUse | None:
    """Return how a module works as a linear layer, or None where that is not certain.

    It holds a matrix and at most a vector, and nothing else; its forward pass, run in both modes, is one product with
    the matrix and at most one sum with the vector, and gives the numbers of `F.linear`.

    >>> linear_use(nn.Linear(3, 2)), linear_use(nn.Bilinear(3, 2, 2))
    (LinearUse(weight='weight', bias='bias', turned=False), None)
    """
    named = dict(layer.named_parameters(recurse=False))
    matrices = [name for name, p in named.items() if p.dim() == 2]
    vectors = [name for name, p in named.items() if p.dim() == 1]
    nothing_else = not layer._modules and not layer._buffers and len(named) == len(matrices) + len(vectors)
    if not nothing_else or len(matrices) != 1 or len(vectors) > 1 or _changed(layer):
        return None
    bias = vectors[0] if vectors else None
    uses = [LinearUse(matrices[0], bias, turned) for turned in (False, True)]
    return next((use for use in uses if _does(layer, use)), None)


def _changed(layer: nn.Module) -> bool:
    """Say whether a module does more than its forward pass shows: hooks, a state dict or modes of its own."""
    hooked = any(getattr(layer, name) for name in vars(layer) if name.endswith("_hooks"))
    return hooked or "forward" in vars(layer) or any(getattr(type(layer), n) is not getattr(nn.Module, n) for n in _OWN)


def _does(layer: nn.Module, use: LinearUse) -> bool:
    matrix = use.matrix(layer).detach()
    bias = None if use.bias is None else layer.get_parameter(use.bias).detach()
    if bias is not None and len(bias) != len(matrix):
        return False
    drawn = torch.Generator().manual_seed(0)
    for training in (False, True):
        for shape in ((3,), (2, 3)):
            inputs = torch.randn(*shape, matrix.shape[1], generator=drawn).to(matrix.device, matrix.dtype)
            given = inputs.clone()
            with _mode(layer, training), torch.no_grad(), _Operations() as seen:
                try:
                    outputs = layer(given)
                except Exception:  # this is not how it is called
                    return False
            wanted = F.linear(inputs, matrix, bias)
            if not seen.product or not isinstance(outputs, torch.Tensor) or outputs.shape != wanted.shape:
                return False
            if outputs.dtype != wanted.dtype or not torch.allclose(outputs, wanted, rtol=1e-3, atol=1e-4):
                return False
    return True


@contextlib.contextmanager
def _mode(layer: nn.Module, training: bool) -> Iterator[None]:
    before = layer.training
    layer.training = training
    try:
        yield
    finally:
        layer.training = before


class _Operations(Operations):
    """Notes what PyTorch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @property
    def product(self) -> bool:
        """Whether it is one product, at most one sum, and nothing else that looks at a number."""
        products = sum(name in _PRODUCTS for name in self.names)
        return products == 1 and self.names.count("aten::add") <= 1 and _ALLOWED.issuperset(self.names)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation as it is."""
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))
