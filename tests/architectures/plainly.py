"""What the steps are checked against: calls, losses and evaluations in plain PyTorch, without this toolkit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from tests.architectures.entry import Architecture

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Wrong(Exception):
    """A result that an independent computation does not confirm."""


def batches(model: nn.Module, part: Any, size: int) -> Iterator[tuple[Any, Any]]:
    """Yield `(inputs, targets)` as one would in a loop of one's own, floats in the model's type."""
    if isinstance(part, DataLoader):
        pairs = (batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, batch) for batch in part)
    else:
        pairs = zip(part[0].split(size), part[1].split(size), strict=True)
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    for inputs, targets in pairs:
        if isinstance(inputs, torch.Tensor) and inputs.is_floating_point() and not isinstance(part, DataLoader):
            inputs = inputs.to(floats)
        yield inputs, targets


def arguments(inputs: Any) -> Arguments:
    """Return positional and keyword arguments."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence):
        return tuple(inputs), {}
    return (inputs,), {}


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model on a batch's inputs, with the same random numbers each time."""
    args, kwargs = arguments(inputs)
    torch.manual_seed(0)
    return model(*args, **kwargs)


def loss_of(architecture: Architecture, outputs: Any, targets: Any) -> torch.Tensor:
    """Return the loss of a batch."""
    if architecture.loss is not None:
        return architecture.loss(outputs, targets)
    if not isinstance(targets, torch.Tensor):
        return outputs.loss
    return (
        F.mse_loss(outputs, targets.to(outputs.dtype))
        if targets.is_floating_point()
        else F.cross_entropy(outputs, targets)
    )


def metric_of(architecture: Architecture, outputs: Any, targets: Any) -> float:
    """Return the metric of a batch."""
    if architecture.metric is not None:
        return float(architecture.metric.function(outputs, targets))
    if architecture.loss is None and isinstance(targets, torch.Tensor) and not targets.is_floating_point():
        return float((outputs.argmax(1) == targets).double().mean())
    return float(loss_of(architecture, outputs, targets))


def measured(architecture: Architecture, model: nn.Module, size: int) -> float:
    """Return the metric over the validation part."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches(model, architecture.data().validation, size):
            weight = weight_of(architecture, inputs, targets)
            total += weight * metric_of(architecture, call(model, inputs), targets)
            count += weight
    return total / count


def weight_of(architecture: Architecture, inputs: Any, targets: Any) -> int:
    """Return what a batch's metric is a mean over: of a model's own loss the labels that count, otherwise examples."""
    labels = targets.get("labels") if architecture.loss is None and isinstance(targets, Mapping) else None
    if isinstance(labels, torch.Tensor) and labels.dim() > 1:
        return int((labels != -100).sum())
    return examples_in(inputs)


def examples_in(inputs: Any) -> int:
    """Return how many examples a batch holds."""
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    if hasattr(inputs, "num_graphs"):
        return inputs.num_graphs
    args, kwargs = arguments(inputs)
    return next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))


def fewer(inputs: Any, count: int) -> Any:
    """Return the first examples of a batch of tensors."""
    if isinstance(inputs, torch.Tensor):
        return inputs[:count]
    if isinstance(inputs, Mapping):
        return {key: fewer(value, count) for key, value in inputs.items()}
    return type(inputs)(fewer(each, count) for each in inputs) if isinstance(inputs, tuple | list) else inputs


def learned(architecture: Architecture, model: nn.Module, size: int) -> set[str]:
    """Return the parameters that get a gradient on the training part, by name."""
    model.train()
    for inputs, targets in batches(model, architecture.data().train, size):
        loss_of(architecture, call(model, inputs), targets).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


def compare(found: Any, wanted: Any, close: float, where: str = "outputs") -> None:
    """Raise `Wrong` unless two results have the same classes, the same structure and close values."""
    if type(found) is not type(wanted):
        raise Wrong(f"{where} is a {type(found).__name__}, not a {type(wanted).__name__}")
    if isinstance(wanted, torch.Tensor):
        compare_tensors(found, wanted, close, where)
    elif isinstance(wanted, Mapping):
        if list(found) != list(wanted):
            raise Wrong(f"{where} has the keys {list(found)}, not {list(wanted)}")
        for key, value in wanted.items():
            compare(found[key], value, close, f"{where}[{key!r}]")
    elif isinstance(wanted, tuple | list):
        if len(found) != len(wanted):
            raise Wrong(f"{where} has {len(found)} entries, not {len(wanted)}")
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            compare(one, other, close, f"{where}[{i}]")
    elif dataclasses.is_dataclass(wanted) or isinstance(wanted, torch.distributions.Distribution):
        compare(vars(found), vars(wanted), close, where)
    elif hasattr(wanted, "layers"):  # a cache of keys and values
        for name in ("keys", "values"):
            mine, theirs = ([getattr(layer, name, None) for layer in each.layers] for each in (found, wanted))
            compare(mine, theirs, close, f"{where}.{name}")
    elif isinstance(wanted, bool | int | float | str) and found != wanted:
        raise Wrong(f"{where} is {found!r}, not {wanted!r}")


def compare_tensors(found: torch.Tensor, wanted: torch.Tensor, close: float, where: str) -> None:
    """Raise `Wrong` unless two tensors agree in type, shape and, relative to the largest value, in all values."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        raise Wrong(f"{where} is {found.dtype} {list(found.shape)}, not {wanted.dtype} {list(wanted.shape)}")
    if not wanted.numel() or torch.equal(found, wanted):
        return
    if not (wanted.is_floating_point() or wanted.is_complex()):
        raise Wrong(f"{where} holds other values")
    kind = torch.complex128 if wanted.is_complex() else torch.float64
    one, other = found.to(kind), wanted.to(kind)
    finite = torch.isfinite(other)
    if not torch.equal(finite, torch.isfinite(one)):
        raise Wrong(f"{where} is infinite or NaN in other places")
    gap = float((one - other)[finite].abs().max()) if bool(finite.any()) else 0.0
    scale = float(other[finite].abs().max()) if bool(finite.any()) else 1.0
    if gap > close * max(scale, 1e-3):
        raise Wrong(f"{where} differs by {gap:.3g} where values reach {scale:.3g}")
