"""Parts of a data set, ready to train on: what callers hand over, checked, read and split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from lottery.data import Data
from lottery.data.arrays import as_images, as_inputs, as_targets, standardizing
from lottery.data.batch import mapped
from lottery.data.items import in_memory, is_items, read_items
from lottery.data.part import Loader, Part, Tensors
from lottery.data.reading import unshared
from lottery.data.splitting import examples_of, split_loader
from pruning.calls.calling import Forward
from pruning.errors import DataError

_ADJECTIVES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Parts:
    """The three parts of a search, with what a model needs to know of them.

    Attributes:
        train: the training part.
        validation: the part on which choices are made.
        test: the part that is only used to report, or None.
        name: for tables and paths.
        default_model: the registered model that is taken where none is named.
        forward: the caller's own way to hand a batch to a model, or None.
    """

    train: Part
    validation: Part
    test: Part | None
    name: str
    default_model: str = "mlp"
    forward: Forward | None = None

    @property
    def each(self) -> tuple[Part, Part, Part | None]:
        """Train, validation and test."""
        return self.train, self.validation, self.test

    @property
    def example(self) -> tuple[Any, Any]:
        """The first batch of inputs and targets (all of them for tensors)."""
        if isinstance(self.train, Tensors):
            return self.train.inputs, self.train.targets
        return next(self.train.batches(0, DataError))

    def few(self, count: int) -> Any:
        """Return the inputs of the first examples."""
        return mapped(lambda leaf: leaf[:count], self.example[0])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example's inputs."""
        inputs = self.example[0]
        if not isinstance(inputs, torch.Tensor):
            raise DataError("a named model needs tensors as inputs; these batches are another pytree")
        return tuple(inputs.shape[1:])

    @property
    def outputs(self) -> int:
        """How many outputs a model needs: classes for integer labels (seen before testing), values for others."""
        targets = self.example[1]
        if not isinstance(targets, torch.Tensor):
            raise DataError("a named model needs tensors as labels; these batches are another pytree")
        if targets.dtype == torch.int64:
            return 1 + max(_highest_label(part) for part in (self.train, self.validation))
        return int(np.prod(targets.shape[1:], dtype=int))

    def with_floats(self, dtype: torch.dtype) -> Parts:
        """Return the parts with floating-point tensors in this type, a model's own."""
        train, validation, test = (
            part.with_floats(dtype) if isinstance(part, Tensors) else part
            for part in (self.train, self.validation, self.test)
        )
        assert train is not None
        assert validation is not None
        return replace(self, train=train, validation=validation, test=test)

    def with_inputs(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Parts:
        """Return the parts with what a function makes of their inputs, where these are one tensor in memory."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        pairs = {name: part for name, part in named.items() if isinstance(part, Tensors) and part.is_pair}
        return replace(self, **{name: replace(part, inputs=function(part.inputs)) for name, part in pairs.items()})

    def fingerprint(self) -> str:
        """Return a hash that tells data sets apart; what differs from pass to pass has no part in it (`unsure`)."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        parts = ["-" if p is None else "?" if p.unsure else p.fingerprint() for p in named.values()]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @property
    def unsure(self) -> list[str]:
        """Why two data sets of one fingerprint may differ, part by part; empty where they cannot."""
        named = {"training": self.train, "validation": self.validation, "test": self.test}
        return [f"of the {name} part {part.unsure}" for name, part in named.items() if part is not None and part.unsure]


def prepare(data: Data, seed: int, validation_size: int | float | None = None, forward: Forward | None = None) -> Parts:
    """Return checked parts; a missing validation part is split off the training part by seed.

    Args:
        data: the data as the caller gave them.
        seed: the seed of the split.
        validation_size: examples or fraction to hold out; by default `data.validation_size`.
        forward: the caller's own way to hand a batch to a model, or None.

    Raises:
        DataError: unusable data, or a `DataLoader` without a validation part that cannot be split.
    """
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    given = {name: _unpacked(value) for name, value in given.items() if value is not None}
    images = _images(given)
    parts = {
        name: _pair(images[name], value[1], name) if name in images else _part(value, name)
        for name, value in given.items()
    }
    for name, part in parts.items():
        _check_against(parts["train"], part, name)
    if "validation" not in parts:
        size = data.validation_size if validation_size is None else validation_size
        parts["train"], parts["validation"] = _split(parts["train"], size, seed)
    if images:
        scaled = (*images, "validation") if data.validation is None else images
        parts |= _standardized({name: parts[name] for name in scaled}, images["train"])
    called = {name: part.called_by(forward) for name, part in parts.items()}
    return Parts(called["train"], called["validation"], called.get("test"), data.name, forward=forward)


def _images(given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the inputs of every part that is a pair of arrays, where all of these are uint8 images."""
    pairs = {name: value for name, value in given.items() if isinstance(value, tuple | list) and len(value) == 2}
    if "train" not in pairs or not all(str(getattr(x, "dtype", "")).endswith("uint8") for x, _ in pairs.values()):
        return {}
    return {name: as_images(_on_host(x), name) for name, (x, _) in pairs.items()}


def _standardized(parts: Mapping[str, Part], train: torch.Tensor) -> dict[str, Part]:
    """Scale parts of uint8 images alike: by the whole training part, with what is held out of it."""
    scale = standardizing(train)
    return {name: replace(part, inputs=scale(part.inputs)) for name, part in parts.items() if isinstance(part, Tensors)}


def _unpacked(value: Any) -> Any:
    return value.tensors if isinstance(value, TensorDataset) and len(value.tensors) == 2 else value


def _on_host(value: Any) -> np.ndarray[Any, Any]:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _part(value: Any, name: str) -> Part:
    if isinstance(value, DataLoader):
        return _loader(value, name)
    if is_items(value):
        return read_items(value, name, _ADJECTIVES[name])
    if isinstance(value, Mapping):
        return in_memory(value, name)
    if isinstance(value, tuple | list) and len(value) == 2:
        if isinstance(value[0], Mapping) or isinstance(value[1], Mapping):
            return in_memory(tuple(value), name)
        return _pair(as_inputs(value[0], name), value[1], name)
    raise DataError(
        f"{name} data: expected (X, y), a Dataset, a list of dictionaries or a DataLoader, not {type(value).__name__}"
    )


def _pair(inputs: torch.Tensor, targets: Any, name: str) -> Tensors:
    part = Tensors(inputs, as_targets(targets, name))
    if len(part.inputs) != len(part.targets):
        raise DataError(f"{name}: {len(part.inputs)} inputs but {len(part.targets)} labels")
    return part


def _loader(loader: DataLoader[Any], name: str) -> Loader:
    try:
        length = len(loader)
    except TypeError as error:
        raise DataError(
            f"{name}: a DataLoader without a length cannot be counted in epochs; give its stream a __len__"
        ) from error
    if length == 0:
        raise DataError(f"{name}: the DataLoader yields no batch (drop_last with fewer examples than a batch?)")
    return Loader(unshared(loader), f"the {_ADJECTIVES[name]} DataLoader")


def _split(train: Part, size: int | float, seed: int) -> tuple[Part, Part]:
    """Return the part without its validation examples, and those: drawn by seed, in the order that they lie in."""
    total = len(train) if isinstance(train, Tensors) else examples_of(train.loader)
    count = round(size * total) if isinstance(size, float) else size
    if not 0 < count < total:
        raise DataError(f"validation_size {size} leaves none of {total:,} examples on one side; try 0.2")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(total, dtype=torch.bool).index_fill(0, order[:count], True)
    kept, held_out = (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)
    if isinstance(train, Tensors):
        return train.take(kept), train.take(held_out)
    first, second = split_loader(train.loader, kept.tolist(), held_out.tolist())
    return replace(train, loader=first, counted={}), Loader(second, "the validation DataLoader")


def _check_against(train: Part, part: Part, name: str) -> None:
    if not isinstance(train, Tensors) or not isinstance(part, Tensors):
        return
    if part.is_pair and train.is_pair and part.inputs.shape[1:] != train.inputs.shape[1:]:
        raise DataError(
            f"{name} inputs have shape {tuple(part.inputs.shape[1:])}, training inputs {tuple(train.inputs.shape[1:])}"
        )


def _highest_label(part: Part) -> int:
    if isinstance(part, Tensors):
        return int(part.targets.max())
    return max(int(targets.max()) for _, targets in part.batches(0, DataError))
