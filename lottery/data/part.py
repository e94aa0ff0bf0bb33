"""One part of a data set: tensors on a device, or a `DataLoader` as given."""

from __future__ import annotations

import collections
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lottery.data.batch import leaves, mapped, size, split_batch
from lottery.data.file_stamps import cached_digest
from lottery.data.passes import pass_digest, repeats
from lottery.data.reading import loaded
from lottery.data.splitting import says_its_length
from lottery.state.tensors import on_host
from pruning.calls.calling import Forward, Whole
from pruning.errors import DataError, LotteryError, RunError


@dataclass(frozen=True)
class Tensors:
    """A part in memory: tensors with the examples along the first axis.

    Attributes:
        inputs: a tensor, or tensors in the containers of a batch (`lottery.data.batch`).
        targets: likewise; what is both inputs and targets is held once.
    """

    inputs: Any
    targets: Any

    def __len__(self) -> int:
        return size(self.inputs)

    @property
    def is_pair(self) -> bool:
        """Whether it is one tensor of inputs and one of targets."""
        return isinstance(self.inputs, torch.Tensor) and isinstance(self.targets, torch.Tensor)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(leaf.device for leaf in leaves(self.inputs) if isinstance(leaf, torch.Tensor))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
        """Return the part with what a function makes of every tensor; one that is held twice is made once."""
        made: dict[int, torch.Tensor] = {}

        def once(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if id(leaf) not in made:
                made[id(leaf)] = function(leaf)
            return made[id(leaf)]

        return Tensors(*mapped(once, (self.inputs, self.targets)))

    def take(self, index: torch.Tensor) -> Tensors:
        """Return the examples at these positions."""
        # The same values; of one block of memory, whole rows at a time.
        return self.map(lambda tensor: tensor.index_select(0, index) if tensor.is_contiguous() else tensor[index])

    def gathered(self, index: torch.Tensor) -> tuple[Any, Any]:
        """Return the examples at these positions, which lie on the part's device, as a batch of their own memory."""
        part = self.map(lambda tensor: _rows(tensor, index))
        return part.inputs, part.targets

    def rows(self, first: int, last: int) -> tuple[Any, Any]:
        """Return the examples from `first` to before `last` as a batch."""
        part = self.map(lambda tensor: tensor[first:last])
        return part.inputs, part.targets

    def with_floats(self, dtype: torch.dtype) -> Tensors:
        """Return the part with floating-point tensors in this type."""
        return self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def called_by(self, forward: Forward | None) -> Tensors:
        """Return the part with the caller's own way to hand it to a model, if there is one."""
        if forward is None:
            return self
        batch = self.inputs if self.inputs is self.targets else (self.inputs, self.targets)
        return Tensors(Whole(batch, forward), self.targets)

    def fingerprint(self) -> str:
        """Return a hash of every value."""
        digest = hashlib.sha256()
        for tensor in leaves((self.inputs, self.targets)):
            array = on_host(tensor)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    @property
    def unsure(self) -> None:
        """Nothing is: every value is in memory."""
        return None


def _rows(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the rows at these positions in the layout of the tensor: images may lie channels last."""
    last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    if not last:
        return tensor.index_select(0, index)
    return tensor.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Loader:
    """A part as a `DataLoader`, iterated as given (its own order, collation, transforms and workers).

    Attributes:
        loader: as the caller gave it.
        what: how errors call it.
        forward: the caller's own way to hand a batch to a model, or None.
        counted: how many batches each seed's epoch turned out to have.
    """

    loader: DataLoader[Any]
    what: str = "the DataLoader"
    forward: Forward | None = None
    counted: dict[int, int] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        """Return how many batches the loader says it has."""
        return len(self.loader)

    def batches(self, seed: int, kind: type[LotteryError] = RunError, epoch: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield `(inputs, targets)` of one epoch, whose order follows from `seed`; errors are of this kind."""
        count = 0
        for batch in loaded(self.loader, seed, self.what, kind, epoch):
            count += 1
            yield split_batch(batch, self.forward)
        self.counted[seed] = count

    def length(self, seed: int, epoch: int) -> int:
        """Return how many batches one seed's epoch has: read through once where the loader's `len` may be a guess."""
        if says_its_length(self.loader):
            return len(self.loader)
        if seed not in self.counted:
            collections.deque(self.batches(seed, epoch=epoch), maxlen=0)
        return self.counted[seed]

    def fingerprint(self) -> str:
        """Return a hash of every item that one seeded pass gives, in its order (where they lie in files: of those)."""
        return cached_digest(self.loader, lambda: pass_digest(self._once))[:16]

    @functools.cached_property
    def unsure(self) -> str | None:
        """Why a hash of what the loader gives says nothing; None where it gives the same each time."""
        return None if repeats(self._once) else "its DataLoader gives something else each time it is read"

    def called_by(self, forward: Forward | None) -> Loader:
        """Return the part with the caller's own way to hand its batches to a model, if there is one."""
        return self if forward is None else replace(self, forward=forward)

    def _once(self) -> Iterator[Any]:
        return map(split_batch, loaded(self.loader, 0, self.what, DataError))


Part = Tensors | Loader
