"""Which labels a classification loss ignores and how it averages, where its attributes say so."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

IGNORED = -100
"""The label that PyTorch's classification losses leave out unless they are told another."""

_FUNCTIONS = (F.cross_entropy, F.nll_loss)


@dataclass(frozen=True)
class ClassLoss:
    """How a classification loss reads its labels.

    Attributes:
        ignored: the label that does not count.
        weight: of each class, or None where all count alike.
    """

    ignored: int = IGNORED
    weight: torch.Tensor | None = None


def class_loss(loss: Any) -> ClassLoss | None:
    """Return how a loss reads class labels; None for one that does not say that it takes any.

    PyTorch's own (`F.cross_entropy`, `F.nll_loss`, in a `functools.partial` too, and their modules) say so, and any
    other object with an `ignore_index`.

    >>> class_loss(functools.partial(F.cross_entropy, ignore_index=255)).ignored
    255
    """
    said = _said(loss)
    base = loss.func if isinstance(loss, functools.partial) else loss
    ignored = said.get("ignore_index", IGNORED if base in _FUNCTIONS else None)
    if not isinstance(ignored, int):
        return None
    weight = said.get("weight")
    return ClassLoss(ignored, weight if isinstance(weight, torch.Tensor) else None)


def smoothed_cross_entropy(smoothing: float) -> Any:
    """Return PyTorch's cross-entropy whose labels share a fraction of their weight with all classes.

    >>> even = torch.zeros(1, 4), torch.tensor([2])
    >>> torch.equal(smoothed_cross_entropy(0.0)(*even), F.cross_entropy(*even))
    True
    """
    return functools.partial(F.cross_entropy, label_smoothing=smoothing)


def is_cross_entropy(loss: Any) -> bool:
    """Say whether a loss is the default one for classes, smoothed or not.

    >>> is_cross_entropy(smoothed_cross_entropy(0.1)), is_cross_entropy(F.nll_loss)
    (True, False)
    """
    return (loss.func if isinstance(loss, functools.partial) else loss) is F.cross_entropy


def loss_weight(loss: Any, targets: Any, examples: int) -> torch.Tensor | int:
    """Return how much a batch counts in the mean of a loss over all batches.

    A classification loss is a mean over the labels that count, each by the weight of its class; any other is taken
    for a mean over examples. One that sums instead (`reduction="sum"`) gives its mean over examples.

    Args:
        loss: what is averaged.
        targets: the targets of the batch.
        examples: in the batch.

    >>> loss_weight(F.cross_entropy, torch.tensor([1, -100, 0]), 3).item()
    2
    """
    how = class_loss(loss)
    if how is None or sums(loss) or not isinstance(targets, torch.Tensor) or targets.is_floating_point():
        return examples
    counts = targets != how.ignored
    if how.weight is None:
        return counts.sum()
    return (how.weight.to(targets.device)[torch.where(counts, targets, 0)] * counts).sum()


def sums(loss: Any) -> bool:
    """Say whether a loss is a sum over its batch instead of a mean."""
    return _said(loss).get("reduction") == "sum"


def _said(loss: Any) -> dict[str, Any]:
    """Return what a loss says of itself: a partial's keywords, on top of an object's attributes."""
    if isinstance(loss, functools.partial):
        return {**_said(loss.func), **loss.keywords}
    return {name: getattr(loss, name, None) for name in ("ignore_index", "weight", "reduction") if hasattr(loss, name)}
