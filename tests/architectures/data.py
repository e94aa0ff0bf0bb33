"""Small data for the networks made by hand, in the form in which people have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import DataLoader, default_collate

from lottery.data import Data

TRAIN, VALIDATION, BATCH, CLASSES, TOKENS = 24, 12, 6, 3, 20


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _labels(count: int = TRAIN + VALIDATION) -> torch.Tensor:
    return torch.arange(count) % CLASSES


def _parts(x: torch.Tensor, y: torch.Tensor) -> Data:
    return Data((x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:]))


def _loaders(examples: list[Any], collate: Callable[[list[Any]], Any] = default_collate) -> Data:
    train, validation = (DataLoader(part, BATCH, collate_fn=collate) for part in (examples[:TRAIN], examples[TRAIN:]))  # pyright: ignore[reportArgumentType]
    return Data(train, validation)


def floats(*shape: int) -> torch.Tensor:
    """Return random examples of a shape, each class around another value."""
    x = torch.randn(TRAIN + VALIDATION, *shape, generator=_draw())
    return x + 0.5 * _labels().reshape(-1, *[1] * len(shape))


def classified(*shape: int, dtype: torch.dtype = torch.float32) -> Data:
    """`(X, y)` with integer classes."""
    return _parts(floats(*shape).to(dtype), _labels())


def reconstructed(*shape: int) -> Data:
    """`(X, X)`."""
    return _parts(floats(*shape), floats(*shape))


def regressed(*shape: int) -> Data:
    """`(X, y)` with a float for each example, a function of its inputs."""
    x = floats(*shape)
    return _parts(x, x.flatten(1).sum(1).tanh())


def segmented() -> Data:
    """Images with a class for each pixel."""
    x = floats(3, 8, 8)
    return _parts(x, (x.sum(1) > 0).long())


def _sentences() -> torch.Tensor:
    return torch.randint(1, TOKENS, (TRAIN + VALIDATION, 7), generator=_draw())


def sentences() -> Data:
    """Token ids and a class."""
    return _parts(_sentences(), _labels())


def padded_sentences() -> Data:
    """The same, padded on the left with 0."""
    x = _sentences()
    return _parts(x.masked_fill(torch.arange(7) < (torch.arange(len(x)) % 3)[:, None], 0), _labels())


def next_tokens() -> Data:
    """Token ids, and the token that follows each."""
    x = _sentences()
    return _parts(x, x.roll(-1, 1))


def pairs(*shape: int, classes: bool = True) -> Data:
    """A loader of `((left, right), y)`."""
    left, right = floats(*shape), floats(*shape).flip(0)
    y = _labels() if classes else (left - right).flatten(1).abs().mean(1)
    return _loaders([((left[i], right[i]), y[i]) for i in range(len(y))])


def views() -> Data:
    """A loader of `((one view, another), position in the batch)`."""
    left = floats(6)
    noise = 0.1 * torch.randn(left.shape, generator=_draw())
    return _loaders([((left[i], left[i] + noise[i]), i % BATCH) for i in range(len(left))])


def two_targets() -> Data:
    """A loader of `(x, (class, value))`."""
    x, y = floats(6), _labels()
    return _loaders([(x[i], (y[i], x[i].sum())) for i in range(len(y))])


def dictionaries() -> Data:
    """A loader of dictionaries, with the label among them."""
    x, y = floats(6), _labels()
    return _loaders([{"values": x[i], "scale": torch.ones(1), "label": y[i]} for i in range(len(y))])


def _ragged() -> list[torch.Tensor]:
    x = floats(5, 4)
    return [each[: 2 + i % 4] for i, each in enumerate(x)]


def with_lengths() -> Data:
    """A loader of `((padded, lengths), y)`."""

    def collate(examples: list[Any]) -> Any:
        sequences, y = zip(*examples, strict=True)
        lengths = torch.tensor([len(each) for each in sequences])
        return (pad_sequence(list(sequences), batch_first=True), lengths), torch.stack(y)

    return _loaders(list(zip(_ragged(), _labels(), strict=True)), collate)


def packed() -> Data:
    """A loader of `(PackedSequence, y)`."""

    def collate(examples: list[Any]) -> Any:
        sequences, y = zip(*examples, strict=True)
        return pack_sequence(list(sequences), enforce_sorted=False), torch.stack(y)

    return _loaders(list(zip(_ragged(), _labels(), strict=True)), collate)


@dataclass
class Graphs:
    """A batch of graphs as libraries for them have it: one object, which moves itself."""

    x: torch.Tensor
    edges: torch.Tensor
    graph: torch.Tensor
    y: torch.Tensor

    @property
    def num_graphs(self) -> int:
        """How many."""
        return len(self.y)

    def to(self, *args: Any, **kwargs: Any) -> Graphs:
        """Return the batch elsewhere."""
        return Graphs(*(each.to(*args, **kwargs) for each in (self.x, self.edges, self.graph, self.y)))


def graphs() -> Data:
    """A loader of such batches: rings of three to five nodes."""

    def collate(examples: list[Any]) -> Graphs:
        nodes, y = zip(*examples, strict=True)
        sizes = [len(each) for each in nodes]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        rings = [
            torch.stack([torch.arange(n), (torch.arange(n) + 1) % n]) + s for n, s in zip(sizes, starts, strict=True)
        ]
        return Graphs(
            torch.cat(nodes),
            torch.cat(rings, 1),
            torch.arange(len(nodes)).repeat_interleave(torch.tensor(sizes)),
            torch.stack(y),
        )

    nodes = [each[: 3 + i % 3] for i, each in enumerate(floats(5, 4))]
    return _loaders(list(zip(nodes, _labels(), strict=True)), collate)
