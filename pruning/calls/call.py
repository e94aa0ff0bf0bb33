"""One call of a module: its arguments, and what the module makes of them, every time as if it were the first time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pruning.calls.calling import spread
from pruning.calls.structures import copied, map_tensors, tensors_in


@dataclass(frozen=True)
class Call:
    """How a module is called."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, example: Sequence[Any], named: Mapping[str, Any]) -> Call:
        """Return the call that an example says: one mapping whose keys are names of the model's arguments gives these.

        >>> Call.of(nn.Linear(2, 1), [{"input": 1}], {}), Call.of(nn.Linear(2, 1), [{"x": 1}], {})
        (Call(args=(), kwargs={'input': 1}), Call(args=({'x': 1},), kwargs={}))
        """
        if named or len(example) != 1 or not isinstance(example[0], Mapping):
            return cls(tuple(example), named)
        try:
            inspect.signature(model.forward).bind(**example[0])
        except TypeError:  # inspect's word for arguments that do not fit
            return cls(tuple(example))
        return cls(*spread(model, example[0]))

    def run(self, module: nn.Module) -> Any:
        """Call the module in this way, without gradients, on copies of the arguments: it may write into them.

        Whatever is drawn at random is drawn from the same seed, and the caller's random numbers stay as they are.
        """
        copies = self.cloned()
        with self.keeping_random_numbers(), torch.no_grad():
            torch.manual_seed(0)
            return module(*copies.args, **copies.kwargs)

    def keeping_random_numbers(self) -> AbstractContextManager[None]:
        """Return a context that restores PyTorch's generators on the devices of the arguments."""
        return torch.random.fork_rng(sorted({t.device.index or 0 for t in self.tensors if t.is_cuda}))

    def cloned(self) -> Call:
        """Return the same call on copies of its tensors."""
        args, kwargs = copied((self.args, dict(self.kwargs)))
        return Call(args, kwargs)

    @property
    def values(self) -> tuple[Any, ...]:
        """All arguments, in the order of a traced module's inputs."""
        return (*self.args, *self.kwargs.values())

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors in the arguments."""
        return tensors_in(self.values)

    @property
    def device(self) -> torch.device:
        """Where the first tensor lies; the processor where there is none."""
        tensors = self.tensors
        return tensors[0].device if tensors else torch.device("cpu")

    def like(self, tensors: list[torch.Tensor]) -> Call:
        """Return the call on the device and in the type of numbers of the first of these tensors with floats."""
        floats = [t for t in tensors if t.is_floating_point()]
        if not floats:
            return self
        device, dtype = floats[0].device, floats[0].dtype
        args, kwargs = map_tensors(
            lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), (self.args, dict(self.kwargs))
        )
        return Call(args, kwargs)

    def of_tensors(self) -> Call:
        """Return the call with a tensor in the place of each argument that is an array."""
        return Call(tuple(map(_tensor, self.args)), {name: _tensor(value) for name, value in self.kwargs.items()})

    def resized(self) -> Call | None:
        """Return the call with another number of examples: fewer, or a single one twice; None where nobody can say how.

        Examples lie along the first axis of every tensor that has one, and there are equally many in all of them.

        >>> Call((torch.zeros(4, 2), torch.zeros(4))).resized().tensors[0].shape
        torch.Size([2, 2])
        """
        sizes = {len(t) for t in self.tensors if t.dim()}
        if len(sizes) != 1 or any(t.layout != torch.strided or t.is_nested for t in self.tensors):
            return None
        size = sizes.pop()
        chosen = torch.arange(max(size // 2, 1)) if size > 1 else torch.zeros(2, dtype=torch.long)
        args, kwargs = map_tensors(
            lambda t: t.detach()[chosen.to(t.device)] if t.dim() else t, (self.args, dict(self.kwargs))
        )
        return Call(args, kwargs)

    def described(self) -> str:
        """Return the arguments as a message names them.

        >>> Call((torch.zeros(2, 3),), {"mask": None}).described()
        '[2, 3] torch.float32, mask=None'
        """
        named = [f"{name}={_described(value)}" for name, value in self.kwargs.items()]
        return ", ".join([*map(_described, self.args), *named])


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _described(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else repr(value)
