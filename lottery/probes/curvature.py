"""Second derivatives of the loss, over all prunable weights jointly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lottery.objective import call
from lottery.probes import Look, probe
from lottery.torch_state import to_torch

TEMPERATURE = 200.0
DRAWS = 16


@probe("hessian_gradients", source="Wang et al. 2020, Algorithm 1; T = 200 in the authors' code (arXiv 2002.07376)")
def hessian_gradients(look: Look) -> dict[str, torch.Tensor]:
    """H·g of the loss on a batch, over all surviving prunable weights jointly, with logits divided by 200.

    The temperature is for logits: floating-point outputs that are compared with classes (integers) or booleans. It
    would move the predictions of a regression, so that other outputs stay as they are. One forward pass, one
    backward pass, and one through both.
    """
    weights, keep = list(look.weights.values()), _keep(look)
    with _twice_differentiable(look.model):
        first = _gradients(look, TEMPERATURE)
        vector = [g.detach() * k for g, k in zip(first, keep, strict=True)]
        return dict(zip(look.mask, _product(first, weights, vector, retain=False), strict=True))


@probe("hessian_diagonal", source="Bekas et al. 2007, section 2; Rademacher probes after Hutchinson 1990")
def hessian_diagonal(look: Look) -> dict[str, torch.Tensor]:
    """The Hessian's diagonal on a batch, estimated with 16 seeded Rademacher vectors z as the mean of z⊙(H·z).

    Exact where H is diagonal; otherwise entry i has the variance Σ_{j≠i} H_ij² / 16. A vector is 0 at removed weights,
    which then add no noise; their own entries are 0.
    """
    weights, keep = list(look.weights.values()), _keep(look)
    generator = torch.Generator().manual_seed(look.seed)  # on the host: the same signs on every device
    total = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    with _twice_differentiable(look.model):
        first = _gradients(look, temperature=1.0)
        for draw in range(DRAWS):
            signs = [_signs(k, generator) for k in keep]
            for sums, z, hz in zip(total, signs, _product(first, weights, signs, draw < DRAWS - 1), strict=True):
                sums += z.double() * hz.double()
    return {name: sums / DRAWS for name, sums in zip(look.mask, total, strict=True)}


def _gradients(look: Look, temperature: float) -> tuple[torch.Tensor, ...]:
    """Return the gradients of the loss with the graph that made them."""
    inputs, targets = look.examples
    loss = look.loss(_tempered(call(look.model, inputs), targets, temperature), targets)
    return torch.autograd.grad(loss, list(look.weights.values()), create_graph=True, materialize_grads=True)


def _tempered(outputs: Any, targets: Any, temperature: float) -> Any:
    logits = isinstance(outputs, torch.Tensor) and outputs.is_floating_point()
    labels = isinstance(targets, torch.Tensor) and not targets.is_floating_point()
    return outputs / temperature if logits and labels else outputs


def _product(
    first: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], vector: Sequence[torch.Tensor], retain: bool
) -> Sequence[torch.Tensor]:
    """Return the Hessian times a vector, by the gradient of their product with the gradients."""
    slope = torch.stack([(g * v).sum() for g, v in zip(first, vector, strict=True)]).sum()
    if not slope.requires_grad:  # a loss that is linear in the weights
        return [torch.zeros_like(w) for w in weights]
    return torch.autograd.grad(slope, list(weights), retain_graph=retain, materialize_grads=True)


def _keep(look: Look) -> list[torch.Tensor]:
    return [to_torch(look.mask[name]).to(weight) for name, weight in look.weights.items()]


def _signs(keep: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    signs = torch.randint(0, 2, keep.shape, generator=generator).mul(2).sub(1)
    return signs.to(keep) * keep


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use implementations that have a second derivative: fused attention has none, nor do cuDNN's recurrent layers."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), plain:
        yield
