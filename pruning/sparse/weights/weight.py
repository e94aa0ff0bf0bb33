"""A sparse matrix as a module: the vector of surviving values is the trainable parameter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning.calls.structures import tensors_in
from pruning.errors import MaskMismatch
from pruning.registry import Registry
from pruning.sparse.backends import BACKENDS, Product
from pruning.sparse.plans.cost import machine
from pruning.sparse.plans.dense import dense_matrix
from pruning.sparse.plans.plan import Plan

# A child whose name begins so holds what is kept of the weight that is called as the rest of it.
KEPT = "kept_"


class Sparse(nn.Module, ABC):
    """What holds the surviving values of a masked weight, and multiplies with them.

    Attributes:
        values: the trainable parameter [kept], in the row-major order of the mask.
        plan: the plan of the mask as a matrix [out, everything else].
        shape: the shape of the dense weight.
        backend: the name of the way to multiply; changed in place by whoever chooses.
    """

    def __init__(self, weight: torch.Tensor, keep: NDArray[np.bool_], plan: Plan, backend: str) -> None:
        super().__init__()
        self.values = kept_values(weight, keep)
        self.shape: tuple[int, ...] = tuple(weight.shape)
        self.plan, self.backend = plan, backend

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values: some networks ask a layer's weight for it."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.values.device

    @abstractmethod
    def registry(self) -> Registry[Any]:
        """Return the backends there are."""

    @abstractmethod
    def options(self, inputs: torch.Tensor) -> dict[str, float]:
        """Return the cost in seconds, by the cost model, of each backend that runs on these inputs."""

    def dense(self) -> torch.Tensor:
        """Return the dense weight of the original shape, removed weights 0; differentiable."""
        return self.spread(self.values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return the dense weight with these surviving values."""
        return dense_matrix(values, self.plan).reshape(self.shape)

    def gathered(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the surviving values of a dense weight."""
        return kept_entries(weight, self.plan)

    def extra_repr(self) -> str:
        """Say shape, density and backend where the module is printed."""
        return f"{self.shape}, kept={self.plan.kept}, density={self.plan.density:.4g}, backend={self.backend!r}"


class SparseWeight(Sparse):
    """The surviving values of a masked weight, and the product with them.

    Attributes:
        turned: whether the dense weight is stored [in, out].

    >>> weight = SparseWeight(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), np.array([[True, False], [False, True]]))
    >>> weight(torch.ones(1, 2)).tolist(), weight.dense().tolist()
    ([[1.0, 4.0]], [[1.0, 0.0], [0.0, 4.0]])
    """

    def __init__(self, weight: torch.Tensor, keep: NDArray[np.bool_], backend: str = "dense") -> None:
        super().__init__(weight, keep, Plan.of(keep.reshape(keep.shape[0], -1)), backend)
        self.turned = False

    @classmethod
    def turned_over(cls, weight: torch.Tensor, keep: NDArray[np.bool_]) -> SparseWeight:
        """Return the product with a dense weight that is stored [in, out].

        >>> weight = SparseWeight.turned_over(torch.tensor([[1.0], [2.0]]), np.array([[False], [True]]))
        >>> weight(torch.ones(1, 2)).tolist(), weight.dense().tolist()
        ([[2.0]], [[0.0], [2.0]])
        """
        if tuple(weight.shape) != keep.shape:
            raise MaskMismatch(f"a weight of shape {tuple(weight.shape)} and a mask of shape {keep.shape}")
        found = cls(weight.t(), np.ascontiguousarray(keep.T))
        found.shape, found.turned = tuple(weight.shape), True
        return found

    def forward(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return inputs [..., in] · Wᵀ + bias, [..., out]; memory may be laid out feature by feature."""
        values, inputs, bias = as_autocast(self.values, inputs, bias)
        flat = inputs.dim() == 2
        columns = inputs.t() if flat else inputs.reshape(-1, inputs.shape[-1]).t()
        outputs = self.product(inputs)(values, columns, self.plan)
        if bias is not None:
            outputs = outputs + bias[:, None] if outputs.requires_grad else outputs.add_(bias[:, None])
        return outputs.t() if flat else outputs.t().reshape(*inputs.shape[:-1], self.plan.shape[0])

    def product(self, inputs: torch.Tensor) -> Product:
        """Return the product of the chosen backend, or the dense one where that does not run on such inputs.

        A network may have gone to another device or type of numbers since its backends were chosen.
        """
        chosen = BACKENDS[self.backend].value
        return chosen.product if chosen.runs(inputs.device, inputs.dtype) else BACKENDS["dense"].value.product

    def registry(self) -> Registry[Any]:
        """Return the backends there are."""
        return BACKENDS

    def options(self, inputs: torch.Tensor) -> dict[str, float]:
        """Return the cost in seconds, by the cost model, of each backend that runs on these inputs."""
        rates = machine(inputs.device, inputs.dtype)
        batch = inputs.numel() // max(inputs.shape[-1], 1)
        return {
            entry.name: entry.value.seconds(self.plan, batch, rates)
            for entry in BACKENDS
            if entry.value.runs(inputs.device, inputs.dtype)
        }

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return the dense weight with these surviving values."""
        matrix = dense_matrix(values, self.plan)
        return matrix.t() if self.turned else matrix.reshape(self.shape)

    def gathered(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the surviving values of a dense weight."""
        return kept_entries(weight.t() if self.turned else weight, self.plan)


def as_autocast(
    values: torch.Tensor, inputs: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return weights, inputs and bias in the type that autocast wants of products, or as they are without it.

    >>> numbers = torch.ones(1)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     [tensor.dtype for tensor in as_autocast(numbers, numbers, numbers)]
    [torch.bfloat16, torch.bfloat16, torch.bfloat16]
    >>> as_autocast(numbers, numbers, None)
    (tensor([1.]), tensor([1.]), None)
    """
    kind = inputs.device.type
    if not torch.is_autocast_enabled(kind):
        return values, inputs, bias
    dtype = torch.get_autocast_dtype(kind)
    return values.to(dtype), inputs.to(dtype), None if bias is None else bias.to(dtype)


def kept_values(weight: torch.Tensor, keep: NDArray[np.bool_]) -> nn.Parameter:
    """Return the surviving values of a weight [kept], in the row-major order of the mask, as a new parameter.

    Raises:
        MaskMismatch: a mask of another shape.

    >>> kept_values(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), np.array([[False, True], [True, False]])).tolist()
    [2.0, 3.0]
    """
    if tuple(weight.shape) != keep.shape:
        raise MaskMismatch(f"a weight of shape {tuple(weight.shape)} and a mask of shape {keep.shape}")
    kept = weight.detach()[torch.from_numpy(keep.copy()).to(weight.device)]
    return nn.Parameter(kept, requires_grad=weight.requires_grad)


def kept_entries(weight: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the entries of a dense weight, detached, at the mask of a plan.

    >>> kept_entries(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Plan.of([[0, 1], [1, 0]])).tolist()
    [2.0, 3.0]
    """
    return weight.detach().reshape(-1)[torch.from_numpy(plan.positions).to(weight.device)]


def take_the_place(form: nn.Module, layer: nn.Module) -> None:
    """Let a sparse form answer as its layer does: the mode, the attributes, the state dict.

    Networks ask their layers for `in_features`, `stride` and whatever else they have.

    >>> layer, form = nn.Linear(2, 1).eval(), nn.Module()
    >>> take_the_place(form, layer)
    >>> form.in_features, form.training
    (2, False)
    """
    for name, value in vars(layer).items():
        if not name.startswith("_") and name not in vars(form) and not tensors_in(value):
            setattr(form, name, value)
    form.train(layer.training)
    _hold_dense_state(form)


def dense_weight(form: nn.Module, name: str) -> torch.Tensor:
    """Return the dense weight that a sparse form has in a child called `kept_` and its name; differentiable.

    Networks read a layer's weight: its type, its device, its transpose. What they get is made anew every time.

    >>> form = nn.Module()
    >>> form.kept_weight = SparseWeight(torch.tensor([[1.0, 2.0]]), np.array([[False, True]]))
    >>> dense_weight(form, "weight").tolist()
    [[0.0, 2.0]]
    """
    held = form._modules[KEPT + name]
    assert held is not None
    assert isinstance(held, Sparse)
    return held.dense()


def _hold_dense_state(layer: nn.Module) -> None:
    """Let the state dict of a layer with `SparseWeight` children look as that of the dense layer.

    A child called `weight` or `kept_weight` (a `SparseWeight`, or the kernel of a convolution) is saved as the tensor
    `weight`, dense, and read back from one; removed weights that a state dict brings along are dropped.
    """
    layer.register_state_dict_post_hook(_spread)
    layer.register_load_state_dict_pre_hook(_gather)


def named_as_dense(path: str) -> str:
    """Return the name of a dense weight, given that of the module that holds what is kept of it.

    >>> named_as_dense("out_proj.kept_weight"), named_as_dense("weight_hh_l0")
    ('out_proj.weight', 'weight_hh_l0')
    """
    owner, dot, own = path.rpartition(".")
    return owner + dot + own.removeprefix(KEPT)


def _spread(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name, child in layer.named_children():
        if isinstance(child, Sparse):
            values = state.pop(f"{prefix}{name}.values")
            state[f"{prefix}{named_as_dense(name)}"] = child.spread(values)
            getattr(state, "_metadata", {}).pop(f"{prefix}{name}", None)


def _gather(layer: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    errors: list[str] = rest[-1]
    for name, child in layer.named_children():
        full = f"{prefix}{named_as_dense(name)}"
        if isinstance(child, Sparse) and full in state:
            weight = state.pop(full)
            if tuple(weight.shape) != child.shape:
                errors.append(f"{full} has shape {tuple(weight.shape)}, expected {child.shape}")
                weight = child.dense()
            state[f"{prefix}{name}.values"] = child.gathered(weight)
