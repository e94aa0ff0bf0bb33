"""Second derivatives of the loss by the prunable weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lottery.networks.objectives.objective import call
from lottery.search.probes import Look, probe
from lottery.search.probes.diagonal import Scene, diagonal
from lottery.search.probes.modes import without_noise
from lottery.state.tensors import to_torch
from pruning.masks.complex_tensors import real_product, require_real

TEMPERATURE = 200.0


@probe("hessian_gradients", source="Wang et al. 2020, Algorithm 1; T = 200 in the authors' code (arXiv 2002.07376)")
def hessian_gradients(look: Look) -> dict[str, torch.Tensor]:
    """H·g of the loss on a batch, over all surviving prunable weights jointly, with logits divided by 200.

    The temperature is for logits: floating-point outputs that are compared with classes (integers) or booleans. It
    would move the predictions of a regression, so that other outputs stay as they are. One forward pass, one
    backward pass, and one through both. In the mode in which the network trains, without noise.
    """
    weights, keep = list(look.weights.values()), _keep(look)
    with _twice_differentiable(without_noise(look.model)):
        first = _gradients(look)
        vector = [g.detach() * k for g, k in zip(first, keep, strict=True)]
        return dict(zip(look.mask, _product(first, weights, vector), strict=True))


@probe(
    "hessian_diagonal",
    source="LeCun et al. 1990, OBD; Bekas et al. 2007, section 2, with random signs after Hutchinson 1990",
)
def hessian_diagonal(look: Look) -> dict[str, torch.Tensor]:
    """The Hessian's diagonal on a batch: exact for small linear layers, else estimated with random signs, at least 0.

    `look.probes` (the setting `score_probes`, 64) is how many products with the Hessian each tensor may cost. Linear
    layers of no more outputs, and tensors of no more weights, are exact (`lottery.search.probes.diagonal` says how, and
    when not). Elsewhere many more vectors of signs are used than products: 16 groups of examples have their own.
    Entries of removed weights are 0. In the mode in which the network trains, without noise.
    """
    require_real("the Hessian's diagonal", look.weights, "taylor")
    with _twice_differentiable(look.model):
        keep = dict(zip(look.mask, _keep(look), strict=True))
        return diagonal(
            Scene(without_noise(look.model), look.weights, keep, look.examples, look.loss, look.probes, look.seed)
        )


def _gradients(look: Look) -> tuple[torch.Tensor, ...]:
    """Return the gradients of the loss with the graph that made them."""
    inputs, targets = look.examples
    loss = look.loss(_tempered(call(look.model, inputs), targets), targets)
    return torch.autograd.grad(loss, list(look.weights.values()), create_graph=True, materialize_grads=True)


def _tempered(outputs: Any, targets: Any) -> Any:
    logits = isinstance(outputs, torch.Tensor) and outputs.is_floating_point()
    labels = isinstance(targets, torch.Tensor) and not targets.is_floating_point()
    return outputs / TEMPERATURE if logits and labels else outputs


def _product(
    first: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], vector: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Return the Hessian times a vector, by the gradient of their product with the gradients."""
    slope = torch.stack([real_product(g, v) for g, v in zip(first, vector, strict=True)]).sum()
    if not slope.requires_grad:  # a loss that is linear in the weights
        return [torch.zeros_like(w) for w in weights]
    return torch.autograd.grad(slope, list(weights), materialize_grads=True)


def _keep(look: Look) -> list[torch.Tensor]:
    return [to_torch(look.mask[name]).to(weight) for name, weight in look.weights.items()]


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use implementations that have a second derivative: fused attention has none, nor do cuDNN's recurrent layers."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), plain:
        yield
