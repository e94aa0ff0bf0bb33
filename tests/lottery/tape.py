"""A device that records, played by the CPU: what torch runs is written down, and done again on the same tensors.

As on CUDA, Python is not run again, numbers are what they were, and nothing may be read back while it records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from pruning.uses.operations import Operations

# What reads a value back or copies one from the host.
WAITS = ("_local_scalar_dense", "nonzero", "equal", "lift_fresh", "masked_select", "unique")


class Tape(Operations):
    """Every operation, with what it read and what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        read = _storages((args, kwargs))
        # A batch norm writes its running statistics, which its schema does not say.
        if func._schema.is_mutable or "batch_norm" in name:
            for tensor in _tensors((args, kwargs)):
                key = tensor.untyped_storage().data_ptr()
                if key not in self._own and key not in self._before:
                    self._before[key] = (tensor, tensor.clone())
        result = func(*args, **kwargs)
        made = [tensor for tensor in _tensors(result) if tensor.untyped_storage().data_ptr() not in read]
        self._own |= {tensor.untyped_storage().data_ptr() for tensor in made}
        self.entries.append((func, args, kwargs, made))
        return result

    def undo(self) -> None:
        """Give everything that was there before its contents back: a recording does nothing."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Do it all again."""
        for func, args, kwargs, made in self.entries:
            read = _storages((args, kwargs))
            again = [t for t in _tensors(func(*args, **kwargs)) if t.untyped_storage().data_ptr() not in read]
            for place, value in zip(made, again, strict=True):
                place.copy_(value)


@dataclass
class TapeRecorder:
    """Records on tapes, and counts what it is asked for."""

    asides: int = 0
    tapes: list[Tape] = field(default_factory=list)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self.asides += 1
        yield

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        tape = Tape()
        try:
            with tape:
                work()
        finally:
            with torch.no_grad():
                tape.undo()
        self.tapes.append(tape)
        return tape.replay


class Repeating(TapeRecorder):
    """Does the work itself each time: what a recording must give."""

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        return work


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _storages(values: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(values)}
