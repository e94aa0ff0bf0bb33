"""Parameters and buffers of a PyTorch module as named NumPy arrays, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from pruning.errors import BadValue, MaskMismatch
from pruning.masks.names import match_names

State = dict[str, np.ndarray[Any, Any]]


def state_of(model: nn.Module) -> State:
    """Return every parameter and buffer, copied to the host, in the model's order.

    A tied tensor appears once, under its first name.
    """
    check_storable(model)
    return {name: to_numpy(tensor) for name, tensor in named_tensors(model).items()}


def check_storable(model: nn.Module) -> None:
    """Raise `BadValue` for a parameter or buffer that is no plain array of numbers, and so has no place in a ticket.

    >>> model = nn.Module()
    >>> model.register_buffer("table", torch.eye(2).to_sparse())
    >>> check_storable(model)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: 'table' is a sparse coo tensor, and a ticket holds dense arrays: ...
    """
    for name, tensor in named_tensors(model).items():
        kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.").replace("_", " ")
        if kind != "strided" or tensor.is_meta or tensor.is_nested:
            kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else kind
            raise BadValue(
                f"{name!r} is a {kind} tensor, and a ticket holds dense arrays: keep it as a plain attribute "
                "instead of a buffer, or as dense indices and values"
            )


def check_finite(model: nn.Module) -> None:
    """Raise `BadValue` for a trainable parameter that holds NaN or infinities before anything is trained.

    >>> model = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(model.bias, float("nan"))
    >>> check_finite(model)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: the model's parameter 'bias' holds values that are NaN or infinite ...
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter.detach()).all()):
            raise BadValue(
                f"the model's parameter {name!r} holds values that are NaN or infinite before it is trained; "
                "constants belong in a buffer"
            )


def load_state(model: nn.Module, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copy named arrays into `model`, in place; wrapper prefixes are understood.

    A buffer of another shape, or one that is declared and still None, is replaced: it got its shape from data.

    Raises:
        MaskMismatch: a name that the model lacks (with the closest ones), one that is missing, or a parameter of
            another shape.
    """
    tensors = named_tensors(model)
    absent = unset_buffers(model)
    matched = match_names(state, {**tensors, **dict.fromkeys(absent)})
    persistent = model.state_dict().keys()
    missing = [name for name in tensors if name not in matched.values() and name in persistent]
    if missing:
        raise MaskMismatch(f"the model's tensor {missing[0]!r} is not in the stored weights")
    with torch.no_grad():
        for name, target in matched.items():
            tensor, value = tensors.get(target), to_torch(state[name])
            if tensor is not None and tensor.shape == value.shape:
                tensor.copy_(value)
            elif tensor is None or not isinstance(tensor, nn.Parameter):
                _replace_buffer(model, target, tensor, value)
            else:
                here, there = tuple(tensor.shape), state[name].shape
                raise MaskMismatch(f"{target!r} has shape {here} in the model and {there} in the stored weights")


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of `model`, each tensor once.

    >>> list(named_tensors(nn.BatchNorm1d(1)))
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def unset_buffers(model: nn.Module) -> list[str]:
    """Return the names of the persistent buffers that are declared and still None.

    >>> layer = nn.Linear(2, 1)
    >>> layer.register_buffer("seen", None)
    >>> unset_buffers(layer)
    ['seen']
    """
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, tensor in module._buffers.items()
        if tensor is None and name not in module._non_persistent_buffers_set
    ]


def _replace_buffer(model: nn.Module, name: str, old: torch.Tensor | None, value: torch.Tensor) -> None:
    """Put a tensor in a buffer's place, wherever the model has that buffer."""
    if old is None:
        owner, _, own = name.rpartition(".")
        like = next(model.parameters(), value)
        model.get_submodule(owner)._buffers[own] = value.to(like.device)
        return
    value = value.to(old.device, old.dtype)
    for module in model.modules():
        for own, tensor in module._buffers.items():
            if tensor is old:
                module._buffers[own] = value


def float_type(model: nn.Module) -> torch.dtype:
    """Return the type of a model's first floating-point parameter, or float32.

    >>> float_type(nn.Linear(1, 1).double()), float_type(nn.ReLU())
    (torch.float64, torch.float32)
    """
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return types[0] if types else torch.float32


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a copy of `tensor` on the host; sparse ones become dense, bfloat16 becomes `ml_dtypes.bfloat16`.

    >>> to_numpy(torch.tensor([1.5], dtype=torch.bfloat16)).dtype, to_numpy(torch.eye(2).to_sparse()).tolist()
    (dtype(bfloat16), [[1.0, 0.0], [0.0, 1.0]])
    """
    return on_host(tensor).copy()


def on_host(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return what `to_numpy` returns, for reading only: it may share the tensor's memory.

    >>> np.shares_memory(on_host(ones := torch.ones(2)), ones.numpy())
    True
    """
    tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return a tensor with the values of `array`.

    >>> to_torch(np.array([1.5], ml_dtypes.bfloat16)), to_torch(np.array([True]))
    (tensor([1.5000], dtype=torch.bfloat16), tensor([True]))
    """
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def digest(state: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return a SHA-256 of names, types, shapes and values.

    >>> digest({"w": np.zeros(2)}) == digest({"w": np.zeros(2)})
    True
    """
    total = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        total.update(f"{name}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
