"""A `DataLoader` read: in an order that follows from a seed, with nothing of the caller's left changed."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from lottery.state.generators import Streams, streams_of
from pruning.calls.users_code import is_users_file, users_code
from pruning.errors import LotteryError, RunError

_END = object()


@contextlib.contextmanager
def seeded(loader: DataLoader[Any], seed: int) -> Iterator[None]:
    """Let a loader's order follow from `seed`; all random state, its own generators' too, is left as it was."""
    streams = streams_of(loader)
    before = streams.state()
    try:
        streams.seed(seed)
        yield
    finally:
        streams.restore(before)


def loaded(
    loader: DataLoader[Any], seed: int, what: str, kind: type[LotteryError] = RunError, epoch: int = 0
) -> Iterator[Any]:
    """Yield the loader's batches in an order that follows from `seed` alone.

    While the loader works, all random state is that of its own stream; in between it is that of the code around. Both
    go on undisturbed by each other, so that a batch does not depend on what was drawn since the one before (dropout),
    and an iteration that is abandoned midway leaves nothing behind.

    Args:
        loader: iterated as given.
        seed: the seed of its order, and of every generator that it holds.
        what: the loader's name in an error: `"the training DataLoader"`.
        kind: the kind of the error.
        epoch: how many epochs came before, for a sampler that counts them.

    Raises:
        LotteryError: of this kind, where the loader, its data set or its collation raises anything, or where there is
            no batch at all.
    """
    stream, count = _Stream(streams_of(loader), seed, epoch), 0
    with stream.running(), _explained(what, kind):
        batches = iter(loader)
    while True:
        with stream.running(), _explained(what, kind):
            batch = next(batches, _END)
        if batch is _END:
            break
        count += 1
        yield batch
    if not count:
        raise kind(f"{what} yields no batch (drop_last with fewer examples than a batch? an iterator that is used up?)")


@dataclass
class _Stream:
    """The random state of one iteration, which goes on where it stopped."""

    streams: Streams
    seed: int
    epoch: int
    state: tuple[Any, ...] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        around = self.streams.state()
        try:
            if self.state is None:
                self.streams.seed(self.seed, self.epoch)
            else:
                self.streams.restore(self.state)
            yield
            self.state = self.streams.state()
        finally:
            self.streams.restore(around)


def unshared(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader like this one with workers of its own, which begin anew with every iteration.

    Workers that persist keep random state from one epoch to the next: an epoch would depend on those before it.

    >>> unshared(DataLoader([0, 1], num_workers=1, persistent_workers=True)).persistent_workers
    False
    """
    if not loader.persistent_workers:
        return loader
    own = copy.copy(loader)
    vars(own).update(persistent_workers=False, _iterator=None)  # a DataLoader refuses to have its attributes set
    return own


@contextlib.contextmanager
def _explained(what: str, kind: type[LotteryError]) -> Iterator[None]:
    """As `users_code`; what a worker raised is told with the place in its own process."""
    try:
        with users_code(what, kind):
            yield
    except kind as error:
        inside = _in_worker(str(error.__cause__)) if error.__cause__ is not None else None
        if inside is None:
            raise
        raise kind(f"{what} fails: {inside}") from error.__cause__


def _in_worker(text: str) -> str | None:
    """Return the last line of a worker's traceback with the place in the user's code, or None for another text."""
    if " in DataLoader worker process" not in text or "Original Traceback" not in text:
        return None
    last = text.strip().splitlines()[-1]
    frames = re.findall(r'^\s*File "(.+)", line (\d+), in ', text, re.MULTILINE)
    mine = [f"{file}, line {line}" for file, line in frames if is_users_file(file)]
    return f"{last} ({mine[-1]})" if mine else last
