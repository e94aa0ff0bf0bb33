"""Optimizers of PyTorch that do not load its compiler.

torch wraps what an optimizer does so that its compiler leaves it alone, and for that imports the whole compiler when
the first optimizer is made: two seconds. Nothing compiles an optimizer here, and the functions inside are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

_add_param_group = inspect.unwrap(Optimizer.add_param_group)
_zero_grad = inspect.unwrap(Optimizer.zero_grad)
_sgd_step, _adam_step = inspect.unwrap(SGD.step), inspect.unwrap(Adam.step)


class _Plain(Optimizer):
    """The base class of all optimizers, without torch's wrappers."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _add_param_group(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        _zero_grad(self, set_to_none)


class PlainSGD(_Plain, SGD):
    """`torch.optim.SGD`, the same bit by bit."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, as `torch.optim.SGD.step` does."""
        return _sgd_step(self, closure)


class PlainAdam(_Plain, Adam):
    """`torch.optim.Adam`, the same bit by bit."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, as `torch.optim.Adam.step` does."""
        return _adam_step(self, closure)


class PlainAdamW(_Plain, AdamW):
    """`torch.optim.AdamW`, the same bit by bit."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, as `torch.optim.AdamW.step` does, which is that of Adam."""
        return _adam_step(self, closure)
