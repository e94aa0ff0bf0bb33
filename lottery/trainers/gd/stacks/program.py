"""Work that is done many times on the same tensors: eagerly, or recorded by the device once and replayed.

    run 1, 2, 3      the work itself, on a stream of its own: libraries choose their kernels
    run 4            the work is recorded, replayed once and compared with the work itself, bit by bit
    run 5, …         the recording

Where a device cannot record it, or replays something else, the work goes on eagerly, and that is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from pruning.errors import said

Work = Callable[[], object]

WARM_UPS = 3


class Recorder(Protocol):
    """A device that records what it is told to do, and does it again without being told."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Return the block within which work warms up."""
        ...

    def record(self, work: Work) -> Work:
        """Record the work without doing it, and return what does it; raises `RuntimeError` where that cannot be."""
        ...


@dataclass
class Program:
    """Work that reads and writes tensors which stay where they lie.

    Attributes:
        name: of the work, for people.
        work: does it once; between two times nothing but the contents of tensors may differ.
        state: returns every tensor that the work changes and that outlasts it.
        recorder: records it; None for work that is done eagerly.
        tell: says why it is not recorded after all.
        plain: returns what the work holds beside tensors (a count of its calls): it must not change.

    >>> count = torch.zeros(())
    >>> program = Program("counting", lambda: count.add_(1), lambda: [count], None, print)
    >>> for _ in range(5):
    ...     program.run()
    >>> count
    tensor(5.)
    """

    name: str
    work: Work
    state: Callable[[], Sequence[torch.Tensor]]
    recorder: Recorder | None
    tell: Callable[[str], None]
    plain: Callable[[], object] = lambda: None
    _runs: int = field(default=0, init=False)
    _replay: Work | None = field(default=None, init=False)
    _held: object = field(default=None, init=False)

    @property
    def recorded(self) -> bool:
        """Whether a recording is replayed."""
        return self._replay is not None

    def run(self) -> None:
        """Do the work once."""
        if self._replay is not None:
            self._replay()
        elif self.recorder is None:
            self.work()
        else:
            self._begin(self.recorder)

    def _begin(self, recorder: Recorder) -> None:
        if self._runs == 0:
            self._held = self.plain()
        self._runs += 1
        if self._runs <= WARM_UPS:
            with recorder.aside():
                self.work()
            return
        if self.plain() != self._held:
            self._go_on_eagerly("something in it changes from call to call")
            self.work()
            return
        self._record(recorder)

    def _record(self, recorder: Recorder) -> None:
        before = _copies(self.state())
        try:
            replay = recorder.record(self.work)
        except RuntimeError as error:
            self._go_on_eagerly(said(error))
            self.work()
            return
        replay()
        replayed = _copies(self.state())
        for tensor, value in zip(self.state(), before, strict=True):
            tensor.detach().copy_(value)
        self.work()
        if len(replayed) == len(before) and all(map(same_bits, replayed, self.state())):
            self._replay = replay
        else:
            self._go_on_eagerly("replayed, it computes something else")

    def _go_on_eagerly(self, reason: str) -> None:
        self.recorder = None
        self.tell(f"{self.name} is not recorded as one program, which makes it slower: {reason}")


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors hold the same bits; NaN is equal to itself, and 0 is not -0.

    >>> nan = torch.tensor([float("nan"), 0.0])
    >>> same_bits(nan, nan.clone()), same_bits(torch.zeros(1), -torch.zeros(1))
    (True, False)
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    as_bytes = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(*as_bytes)
