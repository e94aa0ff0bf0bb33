"""Gradients of single examples' losses, and their squares: by a transform of many at once, or one after the other."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map_only

from lottery.data.batch import is_divisible, rows, size
from lottery.data.batches import Batch
from lottery.networks.objectives.metric import BatchFunction
from lottery.networks.objectives.objective import call
from pruning.errors import BadValue, said
from pruning.masks.complex_tensors import halves

# Values that the gradients of one chunk of examples may take together: 256 MiB of float32.
_CHUNK_VALUES = 2**26
_CHUNK_EXAMPLES = 64


@dataclass(frozen=True)
class NetworkLoss:
    """A network, its loss, and the weights in which gradients are taken.

    Attributes:
        model: in evaluation mode: an example's loss may not depend on the others.
        weights: parameters of that model, by name.
        loss: `loss(outputs, targets)`, called with one example at a time.
        asker: who needs this, for the error message.
        instead: what the user may choose where gradients of single examples cannot be computed, for the same message.
    """

    model: nn.Module
    weights: Mapping[str, nn.Parameter]
    loss: BatchFunction
    asker: str
    instead: str


def mean_squares(network: NetworkLoss, batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    """Return the mean over all examples of squared gradients, in float64, by name.

    Of a complex weight, the squares of both halves of the gradient, as the halves of a complex128 number.

    `torch.func` takes a batch at once where it gives what autograd gives for the first example; a loop over examples
    takes over where it does not.

    Raises:
        BadValue: a loss that cannot be computed for a single example.
    """
    by_transform = _by_vmap(network)
    total = {name: _zeros(p) for name, p in network.weights.items()}
    seen, trusted = 0, None
    with differentiable(network.model):
        for batch in batches:
            require_divisible(batch, network.asker, network.instead)
            if trusted is None:
                trusted = _agrees(by_transform, network, batch)
            squares = _attempt(by_transform, batch) if trusted else None
            for name, value in (squares or _by_loop(network, batch)).items():
                total[name] += value
            seen += size(batch)
    return {name: value / seen for name, value in total.items()}


def require_divisible(batch: Batch, asker: str, instead: str) -> None:
    """Raise `BadValue` for a batch whose single examples cannot be had.

    >>> require_divisible(torch.ones(3, 2), "GraSP", "SNIP")
    >>> require_divisible([torch.ones(3), torch.ones(2)], "GraSP", "SNIP")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: GraSP needs single examples, and these batches cannot be cut ...; use SNIP
    """
    if size(batch) > 1 and not is_divisible(batch):
        raise BadValue(
            f"{asker} needs single examples, and these batches cannot be cut along the first axis; use {instead}"
        )


def chunk_size(weights: Mapping[str, nn.Parameter]) -> int:
    """Return how many examples' gradients are held at once."""
    return max(1, min(_CHUNK_EXAMPLES, _CHUNK_VALUES // sum(p.numel() for p in weights.values())))


_Squares = Callable[[Batch], dict[str, torch.Tensor]]


class _Loss(nn.Module):
    """A model with its loss behind it, so that `functional_call` reaches the model's weights."""

    def __init__(self, model: nn.Module, loss: BatchFunction) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: Any, targets: Any) -> torch.Tensor:
        return self.loss(call(self.model, inputs), targets)


def gradients_at_once(network: NetworkLoss) -> Callable[[Batch], dict[str, torch.Tensor]]:
    """Return a function of a batch: the gradient of each example's loss by weight, [N, …], by a transform of all."""
    loss = _Loss(network.model, network.loss)
    weights = {f"model.{name}": p.detach() for name, p in network.weights.items()}

    def single(weights: Mapping[str, torch.Tensor], inputs: Any, targets: Any) -> torch.Tensor:
        alone = tree_map_only(torch.Tensor, lambda tensor: tensor[None], (inputs, targets))
        return functional_call(loss, dict(weights), alone).reshape(())

    gradients = vmap(grad(single), in_dims=(None, 0, 0), randomness="different")

    def of_batch(batch: Batch) -> dict[str, torch.Tensor]:
        # The outer switch keeps autograd from recording the other parameters; `grad` looks only at its own.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = gradients(weights, *batch)
        return {name.removeprefix("model."): gradient for name, gradient in found.items()}

    return of_batch


def gradients_one_by_one(network: NetworkLoss, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the gradient of each example's loss by weight, without the weights that the loss does not depend on.

    Raises:
        BadValue: a loss that cannot be computed for a single example.
    """
    for position in range(size(batch)):
        inputs, targets = rows(batch, position, position + 1)
        try:
            loss = network.loss(call(network.model, inputs), targets)
            found = torch.autograd.grad(loss, list(network.weights.values()), allow_unused=True)
        except Exception as error:  # a caller's model or loss may raise anything
            raise BadValue(
                f"{network.asker} needs the loss of single examples, which fails ({said(error)}); use {network.instead}"
            ) from error
        named = zip(network.weights, found, strict=True)
        yield {name: gradient for name, gradient in named if gradient is not None}


def _by_vmap(network: NetworkLoss) -> _Squares:
    """Return a function of a batch: the sum over its examples of squared gradients, by a transform of all at once."""
    gradients = gradients_at_once(network)
    return lambda batch: {name: _squares(found).sum(0) for name, found in gradients(batch).items()}


def _by_loop(network: NetworkLoss, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the sum over the batch's examples of squared gradients, one example after the other."""
    total = {name: _zeros(p) for name, p in network.weights.items()}
    for gradients in gradients_one_by_one(network, batch):
        for name, gradient in gradients.items():
            total[name] += _squares(gradient)
    return total


def _zeros(weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(weight, dtype=torch.complex128 if weight.is_complex() else torch.float64)


def _squares(gradient: torch.Tensor) -> torch.Tensor:
    squares = halves(gradient).double().square()
    return torch.view_as_complex(squares) if gradient.is_complex() else squares


def _agrees(transform: _Squares, network: NetworkLoss, batch: Batch) -> bool:
    """Say whether the transform gives what autograd gives for the first example.

    Control flow that looks at values, modules that hold on to their weights and unusual batches break it, some of
    them silently.
    """
    first = rows(batch, 0, 1)
    expected = _by_loop(network, first)
    got = _attempt(transform, first)
    # Another order of summation may change digits where gradients cancel; what is wrong is wrong altogether.
    return got is not None and all(
        float((got[name] - value).abs().sum()) <= 0.1 * float(value.abs().sum()) for name, value in expected.items()
    )


def _attempt(transform: _Squares, batch: Batch) -> dict[str, torch.Tensor] | None:
    """Return the transform's answer, or None where it fails: whatever was raised, autograd can do without it."""
    try:
        return transform(batch)
    except Exception:  # torch.func refuses in many ways; the loop over examples then says what is wrong, if anything
        return None


@contextlib.contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Switch off cuDNN where the model is recurrent: it has no backward pass in evaluation mode.

    >>> with differentiable(nn.LSTM(1, 1)):
    ...     torch.backends.cudnn.enabled
    False
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext():
        yield
