"""Channels last: images and the weights of 2-d convolutions with the channels innermost in memory.

oneDNN and the tensor cores compute convolutions in that order, and turn every activation of a network that lies in
another one. Shapes and names stay as they are, and so do files: only rounding differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from lottery.networks.evaluation import InEvaluation
from lottery.networks.objectives.objective import Objective, call
from lottery.networks.objectives.tallies import loss_sums, metric_sums
from lottery.networks.rounding import same_up_to_rounding
from lottery.state.randomness import seeded_everywhere
from pruning.calls.structures import tensors_in
from pruning.copies.copying import copy_module, tensors_within
from pruning.copies.shared_memory import groups_in_memory

ModuleT = TypeVar("ModuleT", bound=nn.Module)

CHANNELS_LAST, CONTIGUOUS = "channels-last", "contiguous"

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_HALVES = (torch.float16, torch.bfloat16)
# What takes memory for meaning is off by as much as there is. Sums in another order round differently, and where batch
# norm and many layers carry that to the sign of an activation, gradients of a small batch differ by some hundredths.
_ROUNDING, _ROUNDING_OF_GRADIENTS = 0.01, 0.1


def turned(model: ModuleT) -> ModuleT:
    """Lay the weights of the 2-d convolutions of `model` out channels last, in place, and return it.

    >>> layer = turned(nn.Conv2d(2, 4, 3))
    >>> layer.weight.shape, layer.weight.stride()
    (torch.Size([4, 2, 3, 3]), (18, 1, 6, 2))
    """
    for weight in _weights(model):
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return model


def turned_images(tensor: torch.Tensor) -> torch.Tensor:
    """Return images [N, C, H, W] laid out channels last; what is no image as it is.

    >>> turned_images(torch.zeros(2, 3, 4, 5)).stride(), turned_images(torch.zeros(2, 3)).stride()
    ((60, 1, 15, 3), (3, 1))
    """
    images = tensor.dim() == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if images else tensor


def layout_of(model: nn.Module) -> str | None:
    """Return how the weights of the 2-d convolutions lie; None where there are none, or both ways are one.

    >>> layout_of(nn.Conv2d(2, 4, 3)), layout_of(nn.Conv2d(1, 4, 3)), layout_of(nn.Linear(2, 1))
    ('contiguous', None, None)
    """
    telling = [weight for weight in _weights(model) if not _is_both(weight)]
    if not telling:
        return None
    last = all(weight.is_contiguous(memory_format=torch.channels_last) for weight in telling)
    return CHANNELS_LAST if last else CONTIGUOUS


def channels_last_pays(model: nn.Module, device: torch.device, precision: str) -> bool:
    """Say whether a network would be faster channels last, by its layers and the kind of device alone.

    On CPUs oneDNN has to be there, and to know the type of the weights. On CUDA half precision gains; float32 does not
    without TF32, which is off here.

    Args:
        model: any network.
        device: where it is trained.
        precision: of the forward pass, as the setting says it.
    """
    weights = [weight for weight in _weights(model) if not _is_both(weight)]
    types = {weight.dtype for weight in weights}
    if not weights:
        return False
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and types <= {torch.float32, torch.bfloat16}
    return device.type == "cuda" and (precision in ("bf16", "fp16") or types <= set(_HALVES))


def same_channels_last(model: nn.Module, inputs: Any, targets: Any, objective: Objective) -> bool:
    """Say whether a network computes the same channels last: a batch forward, backward and in evaluation mode.

    `x.view(n, -1)` raises there, and a dropout of whole activations draws for them in the order in which they lie. A
    network that does not stand being tried stays as it is.

    Args:
        model: any network; copies are tried.
        inputs: a batch, on the model's device.
        targets: the labels of the batch.
        objective: loss and metric, which see what the network returns.
    """
    if groups_in_memory(tensors_within(model)):  # a view of a weight would go on showing the old memory
        return False
    last = turned_images(inputs) if isinstance(inputs, torch.Tensor) else inputs
    try:
        as_it_is = _seen(copy_module(model), inputs, targets, objective.private())
        channels_last = _seen(turned(copy_module(model)), last, targets, objective.private())
    except (Exception, SystemExit):  # the caller's code may raise anything: a layout is no reason to fail
        return False
    # A metric that looks at all outputs together is not called here: it gets them in the order that it knows.
    read_whole = not objective.metric.adds_up and any(not each.is_contiguous() for each in channels_last.measured)
    return not read_whole and (
        same_up_to_rounding(as_it_is.outputs, channels_last.outputs, _ROUNDING)
        and same_up_to_rounding(as_it_is.gradients, channels_last.gradients, _ROUNDING_OF_GRADIENTS)
        and same_up_to_rounding(as_it_is.measured, channels_last.measured, _ROUNDING)
    )


@dataclass(frozen=True)
class _Seen:
    """What a network makes of a batch.

    Attributes:
        outputs: in training, with the loss.
        gradients: of every parameter.
        measured: outputs in evaluation mode.
    """

    outputs: list[torch.Tensor]
    gradients: list[torch.Tensor]
    measured: list[torch.Tensor]


def _seen(model: nn.Module, inputs: Any, targets: Any, objective: Objective) -> _Seen:
    with seeded_everywhere(0), torch.enable_grad():
        outputs = call(model, inputs)
        loss = objective.loss(outputs, targets)
        loss.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        with torch.no_grad(), objective.measuring():
            measured = InEvaluation(model)(inputs)
            loss_sums(objective.loss, measured, targets)
            if objective.metric.adds_up:
                metric_sums(objective.metric, measured, targets)
    return _Seen([*tensors_in(outputs), loss.reshape(-1)], gradients, tensors_in(measured))


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of 2-d convolutions that are plain parameters."""
    found = [layer._parameters.get("weight") for layer in model.modules() if isinstance(layer, _CONVOLUTIONS)]
    return [weight for weight in found if weight is not None and weight.dim() == 4 and weight.layout == torch.strided]


def _is_both(weight: torch.Tensor) -> bool:
    """Say whether a weight lies the same either way: one channel, or one pixel."""
    return weight.shape[1] == 1 or weight.shape[2:].numel() == 1
