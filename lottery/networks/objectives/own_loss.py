"""The loss that a model computes itself and hands back in its outputs, as Hugging Face's models do.

Such a loss is a mean, over the labels that count or over examples. A part of the data has batches of unequal size: the
mean over the part weighs each batch's loss by what it is a mean over, which the labels and the logits tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from lottery.networks.objectives.class_losses import IGNORED
from lottery.networks.objectives.joining import examples
from pruning.errors import DataError


def own_loss(outputs: Any, targets: Any) -> torch.Tensor:
    """Return the loss in a model's outputs.

    It is the outputs themselves, if they are one number; their entry or attribute `loss`; the only number among the
    entries of a tuple; or the sum of a dictionary that holds nothing but numbers (the losses of torchvision's
    detectors).

    Raises:
        DataError: outputs without a loss; the message says what to give.

    >>> own_loss({"loss": torch.tensor(2.0), "logits": torch.zeros(3)}, None).item()
    2.0
    """
    del targets
    found = _found(outputs)
    if found is None:
        raise DataError(
            f"the model's outputs hold no loss ({_shown(outputs)}): give a `loss` of (outputs, batch), put the model's "
            "`labels` into the batches, or let `forward=lambda model, batch: …` return outputs with a `loss`"
        )
    return found


def own_loss_sums(outputs: Any, targets: Any) -> torch.Tensor:
    """Return a batch's own loss times its weight, and its weight: float64 [2].

    >>> own_loss_sums(torch.tensor(2.0), {"labels": torch.tensor([1, 0, -100])})
    tensor([4., 2.], dtype=torch.float64)
    """
    value = own_loss(outputs, targets).detach().double()
    weight = own_weight(outputs, targets).to(value)
    # A batch in which no label counts has a loss of 0 / 0, and no say.
    return torch.stack([torch.where(weight > 0, value * weight, 0.0), weight])


def own_weight(outputs: Any, targets: Any) -> torch.Tensor:
    """Return over how many labels or examples the loss in a model's outputs is a mean.

    Integer `labels` of the batch count where they are not −100. A causal language model's first label of each sequence
    does not count, as it is predicted from nothing: of both counts that one is taken whose cross-entropy with the
    `logits` is nearer to the loss. Without integer labels it is a mean over examples.
    """
    labels = _entry(targets, "labels")
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or not labels.dim():
        return torch.tensor(float(examples(targets)), dtype=torch.float64)
    counts = [(labels != IGNORED).sum(), (labels[..., 1:] != IGNORED).sum()]
    logits = _entry(outputs, "logits")
    if labels.dim() < 2 or not isinstance(logits, torch.Tensor) or logits.shape[:-1] != labels.shape:
        return counts[0].double()
    with torch.no_grad():
        means = torch.stack([_cross_entropy(logits, labels), _cross_entropy(logits[..., :-1, :], labels[..., 1:])])
        nearer = (means - own_loss(outputs, targets).detach().double()).abs().nan_to_num(torch.inf).argmin()
    return torch.stack(counts)[nearer].double()


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)).double()


def _found(outputs: Any) -> torch.Tensor | None:
    if _is_number(outputs):
        return outputs
    loss = _entry(outputs, "loss")
    if _is_number(loss):
        return loss
    if isinstance(outputs, Mapping) and outputs and all(map(_is_number, outputs.values())):
        return torch.stack([value.reshape(()) for value in outputs.values()]).sum()
    if isinstance(outputs, tuple | list):
        numbers = [value for value in outputs if _is_number(value)]
        return numbers[0] if len(numbers) == 1 else None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() == 1 and value.dim() < 2


def _entry(value: Any, name: str) -> Any:
    """Return an entry of a mapping or an attribute of an object; None where there is none."""
    if isinstance(value, Mapping):
        return value.get(name)
    return None if isinstance(value, torch.Tensor) else getattr(value, name, None)


def _shown(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, torch.Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        return f"{kind} with {', '.join(map(str, outputs))}"
    if dataclasses.is_dataclass(outputs):
        return f"{kind} with {', '.join(field.name for field in dataclasses.fields(outputs))}"
    return kind
