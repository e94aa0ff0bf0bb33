"""Parameters and buffers of a PyTorch module as named NumPy arrays, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from pruning.errors import MaskMismatch
from pruning.names import match_names

State = dict[str, np.ndarray[Any, Any]]


def state_of(model: nn.Module) -> State:
    """Return every parameter and buffer, copied to the host, in the model's order.

    A tied tensor appears once, under its first name.
    """
    return {name: to_numpy(tensor) for name, tensor in named_tensors(model).items()}


def load_state(model: nn.Module, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copy named arrays into `model`, in place; wrapper prefixes are understood.

    Raises:
        MaskMismatch: a name that the model lacks (with the closest ones), one that is missing, or another shape.
    """
    tensors = named_tensors(model)
    matched = match_names(state, tensors)
    persistent = model.state_dict().keys()
    missing = [name for name in tensors if name not in matched.values() and name in persistent]
    if missing:
        raise MaskMismatch(f"the model's tensor {missing[0]!r} is not in the stored weights")
    with torch.no_grad():
        for name, target in matched.items():
            tensor = tensors[target]
            if tuple(tensor.shape) != state[name].shape:
                here, there = tuple(tensor.shape), state[name].shape
                raise MaskMismatch(f"{target!r} has shape {here} in the model and {there} in the stored weights")
            tensor.copy_(to_torch(state[name]))


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of `model`, each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def float_type(model: nn.Module) -> torch.dtype:
    """Return the type of a model's first floating-point parameter, or float32."""
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return types[0] if types else torch.float32


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a copy of `tensor` on the host; bfloat16 becomes `ml_dtypes.bfloat16`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return a tensor with the values of `array`."""
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
