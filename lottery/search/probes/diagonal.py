"""The diagonal of a loss's Hessian: exact where that costs no more, estimated with random signs elsewhere.

    weight of a linear layer, rows independent ─▶ second derivatives by its outputs, times squared inputs
    few weights                                ─▶ one product with the Hessian for each
    all others                                 ─▶ random signs, for each tensor and each group of examples by itself

One vector of signs over all weights of a network (Hutchinson) gives an entry h_ii with the variance Σ_{j≠i} h_ij²: of a
network's size, noise a few times as large as what it measures. Everything here makes that sum smaller. Signs in one
tensor leave out what lies across tensors; signs of their own for each group of examples, where the loss is a mean over
examples, are as many vectors for the price of one; and at a linear layer only its outputs are mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lottery.data.batches import Batch, size
from lottery.networks.objectives.metric import BatchFunction
from lottery.networks.objectives.objective import call
from pruning.calls.structures import map_tensors

# Into how many groups the examples are split, each with signs of its own.
GROUPS = 16
# Relative difference below which two sums of the same gradients in another order count as equal.
_SAME = 1e-3


@dataclass(frozen=True)
class Scene:
    """The network, batch and loss whose curvature is computed.

    Attributes:
        model: in the mode that counts, twice differentiable.
        weights: parameters of it, by name.
        keep: 1 for surviving weights and 0 for others, in the shape and type of each.
        batch: examples.
        loss: `loss(outputs, targets)`.
        products: how many products with the Hessian over the whole batch a tensor may cost.
        seed: the seed of the signs, which are drawn on the host: the same on every device.
    """

    model: nn.Module
    weights: dict[str, nn.Parameter]
    keep: dict[str, torch.Tensor]
    batch: Batch
    loss: BatchFunction
    products: int
    seed: int

    def value(self, batch: Batch) -> torch.Tensor:
        """Return the loss on some examples."""
        inputs, targets = batch
        return self.loss(call(self.model, inputs), targets)


def diagonal(scene: Scene) -> dict[str, torch.Tensor]:
    """Return the diagonal for every weight, in float64; 0 for removed ones.

    An entry that was estimated below 0 is set to 0: where the loss is convex in the outputs and the network is made of
    pieces that are linear (ReLU, pooling), no entry is negative; elsewhere few are. What was computed exactly stays.
    """
    generator = torch.Generator().manual_seed(scene.seed)
    found = dict(_by_outputs(scene, generator))
    small = [name for name, weight in scene.weights.items() if weight.numel() <= scene.products]
    found |= {name: _one_by_one(scene, name) for name in small if name not in found}
    left = [name for name in scene.weights if name not in found]
    if left:
        found |= {name: value.clamp_min(0.0) for name, value in _by_signs(scene, left, generator).items()}
    return {name: found[name] * scene.keep[name].double() for name in scene.weights}


@dataclass(frozen=True)
class _Linear:
    """A call of a linear layer: its inputs [rows, in], and its outputs [rows, out] within a graph."""

    inputs: torch.Tensor
    outputs: torch.Tensor


def _by_outputs(scene: Scene, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the diagonal of linear layers: Σ over rows of ∂²L/∂z_o² · x_i² for the weight [o, i].

    Exact where no row depends on another one, with a unit vector for each output; with more outputs than products may
    be taken, the second derivatives by the outputs are estimated with random signs (and only they).
    """
    calls, loss = _recorded(scene)
    for name, call_ in calls.items():
        slopes = _gradient(loss, [call_.outputs], create_graph=True)[0]
        weight = scene.weights[name]
        if not _is_all(slopes.detach().T @ call_.inputs, _gradient(loss, [weight], retain_graph=True)[0]):
            continue  # the weight is used in another way as well
        if _rows_meet(slopes, call_.outputs, generator):
            continue
        yield name, _second_by_outputs(scene, slopes, call_.outputs, generator).T @ call_.inputs.double().square()


def _recorded(scene: Scene) -> tuple[dict[str, _Linear], torch.Tensor]:
    """Run the model on the batch; return the linear layers that were called once, on rows, and the loss."""
    calls: dict[str, list[_Linear]] = {}

    def recorder(name: str) -> Callable[..., torch.Tensor]:
        def record(module: nn.Module, args: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> torch.Tensor:
            calls.setdefault(name, []).append(_Linear(args[0].detach(), outputs))
            return outputs.clone()  # what is written into it (an activation in place) leaves the record alone

        return record

    names = {id(weight): name for name, weight in scene.weights.items()}
    layers = [module for module in scene.model.modules() if type(module) is nn.Linear and id(module.weight) in names]
    hooks = [layer.register_forward_hook(recorder(names[id(layer.weight)])) for layer in layers]
    try:
        loss = scene.value(scene.batch)
    finally:
        for hook in hooks:
            hook.remove()
    once = {name: found[0] for name, found in calls.items() if len(found) == 1}
    return {name: found for name, found in once.items() if found.inputs.dim() == 2}, loss


def _rows_meet(slopes: torch.Tensor, outputs: torch.Tensor, generator: torch.Generator) -> bool:
    """Say whether the second derivative by a row's outputs depends on another row's (batch norm, a contrastive loss).

    Half of the rows are moved: what stands still then are the others.
    """
    if len(outputs) == 1:
        return False
    moved = torch.randperm(len(outputs), generator=generator)[: len(outputs) // 2].to(outputs.device)
    vector = torch.zeros_like(outputs)
    vector[moved] = _signs(outputs[moved].shape, generator).to(outputs)
    image = _times(slopes, outputs, vector)
    largest = image.abs().max()
    image[moved] = 0.0
    return bool(image.abs().max() > 1e-6 * largest)


def _second_by_outputs(
    scene: Scene, slopes: torch.Tensor, outputs: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return ∂²L/∂z² for every row and output [rows, out]: exact, or estimated with signs and at least 0."""
    width = outputs.shape[1]
    total = torch.zeros_like(outputs, dtype=torch.float64)
    if width <= scene.products:
        for column in range(width):
            unit = torch.zeros_like(outputs)
            unit[:, column] = 1.0
            total[:, column] = _times(slopes, outputs, unit)[:, column].double()
        return total
    for _ in range(scene.products):
        signs = _signs(outputs.shape, generator).to(outputs)
        total += (signs * _times(slopes, outputs, signs)).double()
    return (total / scene.products).clamp_min(0.0)


def _one_by_one(scene: Scene, name: str) -> torch.Tensor:
    """Return the diagonal of one tensor with a product for each of its weights."""
    weight = scene.weights[name]
    slopes = _gradient(scene.value(scene.batch), [weight], create_graph=True)[0]
    total = torch.zeros(weight.numel(), dtype=torch.float64, device=weight.device)
    for position in range(weight.numel()):
        unit = torch.zeros_like(weight).view(-1)
        unit[position] = 1.0
        total[position] = _times(slopes, weight, unit.view(weight.shape)).reshape(-1)[position].double()
    return total.view(weight.shape)


def _by_signs(scene: Scene, names: Sequence[str], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return estimates of the diagonals of some tensors: the mean of z ⊙ (H z) over vectors of random signs z."""
    total = {name: torch.zeros_like(scene.weights[name], dtype=torch.float64) for name in names}
    for share, batch in _groups(scene):
        weights = [scene.weights[name] for name in names]
        first = _gradient(scene.value(batch), weights, create_graph=True)
        for name, weight, slopes in zip(names, weights, first, strict=True):
            for _ in range(scene.products):
                signs = _signs(weight.shape, generator).to(weight) * scene.keep[name]
                total[name] += (share / scene.products) * (signs * _times(slopes, weight, signs)).double()
    return total


def _groups(scene: Scene) -> list[tuple[float, Batch]]:
    """Return groups of examples, each with its share of the loss; all in one where the loss is no mean over examples.

    Whether it is one shows in the gradient: batch norms, weighted losses and losses over pairs have another.
    """
    count = size(scene.batch)
    step = -(-count // GROUPS)
    whole = [(1.0, scene.batch)]
    try:
        groups = [_rows(scene.batch, start, start + step) for start in range(0, count, step)]
        shares = [size(group) / count for group in groups]
        weights = list(scene.weights.values())
        together = _gradient(scene.value(scene.batch), weights)
        apart = [torch.zeros_like(weight) for weight in weights]
        for share, group in zip(shares, groups, strict=True):
            for total, part in zip(apart, _gradient(scene.value(group), weights), strict=True):
                total += share * part
    except Exception:  # a model or a loss may refuse fewer examples in any way; the batch as a whole is sure
        return whole
    same = all(_is_all(one, other) for one, other in zip(apart, together, strict=True))
    return list(zip(shares, groups, strict=True)) if same else whole


def _rows(batch: Batch, first: int, last: int) -> Batch:
    return map_tensors(lambda tensor: tensor[first:last], batch)


def _is_all(part: torch.Tensor, whole: torch.Tensor) -> bool:
    """Say whether two gradients are the same up to rounding."""
    scale = float(whole.detach().abs().max()) if whole.numel() else 0.0
    return bool((part.detach() - whole.detach()).abs().max() <= _SAME * scale) if whole.numel() else True


def _signs(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, tuple(shape), generator=generator).mul(2).sub(1)


def _gradient(loss: torch.Tensor, of: Sequence[torch.Tensor], **how: Any) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, list(of), materialize_grads=True, **how)


def _times(slopes: torch.Tensor, of: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return the second derivative by a tensor, times a vector; `slopes` is the first, within its graph."""
    if not slopes.requires_grad:  # a loss that is linear in it
        return torch.zeros_like(of)
    return torch.autograd.grad((slopes * vector).sum(), of, retain_graph=True, materialize_grads=True)[0]
