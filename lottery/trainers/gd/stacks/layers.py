"""Layers in a stack: attention that stacks, and on CUDA fully connected layers whose gradients lie as weights do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.deterministic
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def stacking(device: torch.device) -> Iterator[None]:
    """Have the layers of a stack computed in ways that stack, within the block.

    Attention is products and a softmax: PyTorch's fused kernels take no stack.

    Args:
        device: of the stack.

    >>> queries = torch.ones(2, 1, 3, 4)
    >>> with stacking(torch.device("cpu")):
    ...     torch.func.vmap(F.scaled_dot_product_attention)(queries, queries, queries).shape
    torch.Size([2, 1, 3, 4])
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    on_cuda = (LinearInProducts(), _unfilled()) if device.type == "cuda" else ()
    try:
        with sdpa_kernel(SDPBackend.MATH), contextlib.ExitStack() as stack:
            for way in on_cuda:
                stack.enter_context(way)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class LinearInProducts(TorchFunctionMode):
    """Computes `F.linear` of stacked weights as batched products, in training.

    `vmap` leaves the gradient of a weight transposed, and copies it back: of LeNet one of a step's longest kernels.

    >>> x, w = torch.ones(2, 5, 3), torch.ones(2, 4, 3, requires_grad=True)
    >>> with LinearInProducts():
    ...     torch.func.vmap(F.linear)(x, w).sum().backward()
    >>> w.grad.shape, w.grad.is_contiguous()
    (torch.Size([2, 4, 3]), True)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or the stacked form of it."""
        if func is F.linear and torch.is_grad_enabled():
            return _Linear.apply(*_parameters(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _parameters(input: Any, weight: Any, bias: Any = None) -> tuple[Any, Any, Any]:
    return input, weight, bias


class _Linear(torch.autograd.Function):
    """A fully connected layer of one network, which knows what it is for a stack of them."""

    @staticmethod
    def forward(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return _products(inputs[None], weight[None], None if bias is None else bias[None])[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        found = _gradients(ctx.needs_input_grad, inputs[None], weight[None], gradients[0][None])
        return tuple(None if each is None else each[0] for each in found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: torch.Tensor | None) -> tuple[torch.Tensor, int]:
        stacked = [_in_front(tensor, dim, info.batch_size) for tensor, dim in zip(given, in_dims, strict=True)]
        return _Stacked.apply(*stacked), 0


class _Stacked(torch.autograd.Function):
    """Inputs [J, …, I], weights [J, O, I], biases [J, O] or None; outputs [J, …, O]."""

    @staticmethod
    def forward(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return _products(inputs, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        return _gradients(ctx.needs_input_grad, inputs, weight, gradients[0])


def _products(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows, turned = inputs.reshape(len(inputs), -1, inputs.shape[-1]), weight.transpose(1, 2)
    found = torch.bmm(rows, turned) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, turned)
    return found.reshape(*inputs.shape[:-1], weight.shape[1])


def _gradients(
    needed: tuple[bool, ...], inputs: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    each = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return (
        torch.bmm(each, weight).reshape(inputs.shape) if needed[0] else None,
        torch.bmm(each.transpose(1, 2), rows) if needed[1] else None,
        each.sum(1) if needed[2] else None,
    )


def _in_front(tensor: torch.Tensor | None, dim: int | None, count: int) -> torch.Tensor | None:
    if tensor is None:
        return None
    return tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


@contextlib.contextmanager
def _unfilled() -> Iterator[None]:
    """Fill no memory before it is written: deterministic algorithms do, to make mistakes repeat, with a kernel each."""
    switches: Any = torch.utils.deterministic
    before = switches.fill_uninitialized_memory
    switches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        switches.fill_uninitialized_memory = before
