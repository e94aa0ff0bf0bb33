"""Data: what people hand over, and the parts that a search needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Data:
    """Training, validation and test parts.

    Each part is a pair `(X, y)` of arrays or tensors, a `torch.utils.data.Dataset` or a `DataLoader`. Without a
    validation part one is split off the training part by seed. Of a `DataLoader` the data set is split: both parts have
    its batch size, collation and workers, and a random transform is random for the validation part too. (One with a
    sampler or batch sampler of its own, or of a stream, cannot be split: give one for validation too.) Without a test
    part nothing is reported on test data; test data never influences a choice.

    Attributes:
        train: the training part.
        validation: the part on which choices are made.
        test: the part that is only used to report.
        name: how to call it in tables and paths.
        validation_size: how many training examples (or which fraction) to hold out where `validation` is missing.

    >>> import numpy as np
    >>> data = Data(train=(np.zeros((20, 4), "float32"), np.arange(20) % 2))
    >>> data.test is None
    True
    """

    train: Any
    validation: Any = None
    test: Any = None
    name: str = "data"
    validation_size: int | float = 0.1
