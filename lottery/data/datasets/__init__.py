"""Named data sets: one small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lottery.data import Data
from pruning.errors import DataError, UnknownName, unknown
from pruning.registry import Registry

Load = Callable[[], Data]

_PARTS = ("train", "validation", "test")
# What people call them.
_CALLED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

DATASETS: Registry[Load] = Registry("data set", "lottery.data.datasets", listed="data")


def dataset(name: str, *, source: str) -> Callable[[Load], Load]:
    """Register a function that returns a `Data`; its docstring's first line is its summary."""
    return DATASETS.registering(name, source)


def load_data(data: Any) -> Data:
    """Return a `Data` for a name, a path, `(X, y)`, a data set, a `DataLoader`, some of these two, or a `Data`.

    A tuple or list of loaders (or of data sets) is `(train, validation)` or `(train, validation, test)`; a dictionary
    names them (`train`, `validation` or `val`, `test`). A data set is PyTorch's, a list of dictionaries, or anything
    that has a length and an item for every index; a dictionary of arrays is the training part.

    Raises:
        UnknownName: a name that is neither registered nor a path.
        DataError: a path that cannot be read, more than three loaders, or a dictionary of something else.

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
    from torch.utils.data import DataLoader

    from lottery.data.items import is_items

    if isinstance(data, Mapping):
        return _by_name(data)
    several = isinstance(data, tuple | list) and data and not is_items(data)
    if not (several and (isinstance(data[0], DataLoader) or is_items(data[0]))):
        return Data(train=data)
    if len(data) > len(_PARTS):
        raise DataError(f"data: expected (train, validation, test), and {len(data)} loaders or data sets were given")
    return Data(**dict(zip(_PARTS, data, strict=False)))


def _by_name(data: Mapping[Any, Any]) -> Data:
    """Return a `Data` for a dictionary of parts by name, or of arrays."""
    named = {key: _CALLED.get(str(key).lower()) for key in data}
    if all(named.values()):
        parts = {part: data[key] for key, part in named.items() if part}
        if len(parts) < len(named):
            raise DataError(f"data: two of {', '.join(map(str, named))} name one part; give each once")
        if "train" not in parts:
            raise DataError(f"data: a dictionary of parts needs 'train', and this one has {', '.join(map(str, named))}")
        return Data(**parts)
    if data and all(hasattr(value, "shape") for value in data.values()):
        return Data(train=data)
    odd = [str(key) for key, part in named.items() if part is None]
    raise DataError(
        f"data: a dictionary holds parts, by the names {', '.join(map(repr, _CALLED))}, or arrays of equal length; "
        f"{', '.join(map(repr, odd[:5]))} is neither"
    )
