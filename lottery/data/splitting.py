"""One `DataLoader` as two: a validation part held out of the data set that it reads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from pruning.errors import DataError

_COUNTED = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)
_INSTEAD = "give (train, validation) or Data(train=…, validation=…) with a loader for each"


def split_loader(
    loader: DataLoader[Any], kept: Sequence[int], held_out: Sequence[int]
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return two loaders like this one: of the examples that are kept, in its order, and of those that are held out.

    The second is read in order and whole (`drop_last` is for training). Both have the data set's own transforms:
    a random one is random for the validation part too.

    Raises:
        DataError: a loader that `examples_of` refuses.

    >>> [[batch.tolist() for batch in loader] for loader in split_loader(DataLoader([10, 11, 12]), [2, 0], [1])]
    [[[12], [10]], [[11]]]
    """
    examples_of(loader)
    train, validation = Subset(loader.dataset, kept), Subset(loader.dataset, held_out)
    sampler: Sampler[int] = SequentialSampler(train)
    if isinstance(loader.sampler, RandomSampler):
        sampler = RandomSampler(train, generator=loader.sampler.generator)
    first = _like(loader, train, sampler, loader.drop_last)
    return first, _like(loader, validation, SequentialSampler(validation), drop_last=False)


def examples_of(loader: DataLoader[Any]) -> int:
    """Return how many examples the data set of a loader has, if the loader shows each of them once, in any order.

    Raises:
        DataError: a loader of another kind, which cannot be split; the message says what to give instead.

    >>> examples_of(DataLoader([10, 11, 12], batch_size=2, shuffle=True))
    3
    """
    if isinstance(loader.dataset, IterableDataset):
        raise DataError(f"a DataLoader of a stream (IterableDataset) cannot be split: {_INSTEAD}")
    batches = loader.batch_sampler
    if batches is not None and not (type(batches) is BatchSampler and batches.sampler is loader.sampler):
        raise DataError(f"a DataLoader with a batch_sampler of its own cannot be split: {_INSTEAD}")
    sampler = loader.sampler
    plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler._num_samples is None
    )
    if not plain or getattr(sampler, "data_source", None) is not loader.dataset:
        raise DataError(f"a DataLoader with a sampler of its own cannot be split: {_INSTEAD}")
    dataset: Any = loader.dataset
    return len(dataset)


def says_its_length(loader: DataLoader[Any]) -> bool:
    """Say whether `len(loader)` is sure to be the number of its batches: PyTorch's own classes count them.

    >>> says_its_length(DataLoader([10, 11])), says_its_length(DataLoader([10, 11], sampler=[1, 0]))
    (True, False)
    """
    mine = type(loader).__iter__ is DataLoader.__iter__ and type(loader).__len__ is DataLoader.__len__
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    counted = type(batches) in (BatchSampler, type(None)) and type(sampler) in _COUNTED
    return mine and counted and not isinstance(loader.dataset, IterableDataset)


def _like(loader: DataLoader[Any], dataset: Subset[Any], sampler: Sampler[int], drop_last: bool) -> DataLoader[Any]:
    """Return a copy of a loader, of whatever class, that reads another data set."""
    made = copy.copy(loader)
    batches = loader.batch_size is not None
    batch_sampler = BatchSampler(sampler, loader.batch_size or 1, drop_last) if batches else None
    # A DataLoader refuses to have these attributes set; a copy that nobody has iterated yet may have others.
    vars(made).update(
        dataset=dataset, sampler=sampler, batch_sampler=batch_sampler, drop_last=drop_last, _iterator=None
    )
    return made
