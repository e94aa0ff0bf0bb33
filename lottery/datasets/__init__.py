"""Named data sets: one small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lottery.data import Data
from pruning.errors import DataError, UnknownName, unknown
from pruning.registry import Registry, summary_of

Load = Callable[[], Data]

_PARTS = ("train", "validation", "test")

DATASETS: Registry[Load] = Registry("data set", "lottery.datasets")


def dataset(name: str, *, source: str) -> Callable[[Load], Load]:
    """Register a function that returns a `Data`; its docstring's first line is its summary."""

    def register(load: Load) -> Load:
        DATASETS.add(name, load, summary_of(load), source)
        return load

    return register


def load_data(data: Any) -> Data:
    """Return a `Data` for a name, a path, `(X, y)`, a `Dataset`, a `DataLoader`, some of these two, or a `Data`.

    A tuple or list of loaders (or of data sets) is `(train, validation)` or `(train, validation, test)`.

    Raises:
        UnknownName: a name that is neither registered nor a path.
        DataError: a path that cannot be read, more than three loaders, or a dictionary.

    >>> load_data("digits").name
    'digits'
    """
    if isinstance(data, Data):
        return data
    if not isinstance(data, str | Path):
        return _given(data)
    if str(data) in DATASETS.names():
        return DATASETS[str(data)].value()
    path = Path(data).expanduser()
    looks_like_a_path = isinstance(data, Path) or path.exists() or path.suffix or "/" in str(data)
    if not looks_like_a_path:
        error = unknown("data", str(data), DATASETS.names())
        raise UnknownName(f"{error}, or a path to a folder of IDX files or an .npz")
    from lottery.data.files import read_path

    return read_path(path)


def _given(data: Any) -> Data:
    """Return a `Data` for what was given itself."""
    from torch.utils.data import DataLoader, Dataset

    if isinstance(data, Mapping):
        raise DataError(
            "data: a dictionary does not say what it holds; give (X, y), (train, validation, test) loaders or "
            "Data(train=…, validation=…, test=…)"
        )
    if not (isinstance(data, tuple | list) and data and isinstance(data[0], DataLoader | Dataset)):
        return Data(train=data)
    if len(data) > len(_PARTS):
        raise DataError(f"data: expected (train, validation, test), and {len(data)} loaders or data sets were given")
    return Data(**dict(zip(_PARTS, data, strict=False)))
