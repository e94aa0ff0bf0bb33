"""Settings: flat names with values, checked against the fields of dataclasses.

Python keywords, command-line flags, TOML files and recipes all become one flat `{name: value}` mapping here, so that
the same thing has the same name and the same default everywhere.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pruning.errors import BadValue, FileFormatError, shown, unknown
from pruning.files import MOST_JSON, read_bytes

ConfigT = TypeVar("ConfigT")

# Of each group, what a higher layer says replaces what a lower layer said under another name.
EXCLUSIVE = (frozenset({"steps", "epochs"}), frozenset({"levels", "sparsity", "densities"}))


def layer(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings; later ones win, and exclude what contradicts them. Tables are merged entry by entry.

    Raises:
        BadValue: one layer says two things that exclude each other.

    >>> layer({"steps": 100, "lr": 0.1}, {"epochs": 2})
    {'lr': 0.1, 'epochs': 2}
    """
    merged: dict[str, Any] = {}
    for values in settings:
        for group in EXCLUSIVE:
            named = sorted(group & values.keys())
            if len(named) > 1:
                raise BadValue(f"give {' or '.join(named)}, not both")
            if named:
                merged = {key: value for key, value in merged.items() if key not in group}
        if values.get("strategy", merged.get("strategy")) != merged.get("strategy"):
            # A strategy's hyper-parameters mean nothing, or something else, to another one.
            merged.pop("strategy_params", None)
        for key, value in values.items():
            below = merged.get(key)
            tables = isinstance(value, Mapping) and isinstance(below, Mapping)
            merged[key] = {**(below or {}), **value} if tables else value
    return merged


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` texts; a value is TOML, or a plain string where it is not. `KEY.NAME` sets part of a table.

    Raises:
        BadValue: a text without `=`.

    >>> parse_assignments(["milestones=[100, 200]", "optimizer=sgd", "layer_rates.fc3.weight=0.1"])
    {'milestones': [100, 200], 'optimizer': 'sgd', 'layer_rates': {'fc3.weight': 0.1}}
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not key:
            raise BadValue(f"--set takes KEY=VALUE, not {shown(text)}")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except RecursionError as error:
            raise BadValue(f"--set {key}: thousands of brackets are no setting") from error
        except ValueError:  # no TOML, or a number of thousands of digits
            parsed = value
        key, _, part = key.partition(".")
        key = key.replace("-", "_")
        before = settings.get(key, {})
        if part and not isinstance(before, dict):
            raise BadValue(f"--set {key} is given as a value and as a table")
        settings[key] = {**before, part: parsed} if part else parsed
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file; raises `FileFormatError` with the line that is wrong."""
    content = read_bytes(path, MOST_JSON)
    try:
        settings = tomllib.loads(content.decode("utf-8-sig"))  # some editors begin with a byte-order mark
    except ValueError as error:
        raise FileFormatError(f"{path}: not a TOML file ({error})") from error
    except RecursionError as error:
        raise FileFormatError(f"{path}: thousands of brackets are no setting") from error
    names = [key.replace("-", "_") for key in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileFormatError(f"{path}: says {twice[0]} twice, once with - and once with _")
    return dict(zip(names, settings.values(), strict=True))


def build(kind: type[ConfigT], settings: Mapping[str, Any]) -> ConfigT:
    """Make a `kind` from the settings that are its fields, each checked against the field's type.

    Raises:
        BadValue: a value of the wrong type or out of range.
    """
    hints = typing.get_type_hints(kind)
    names = field_names(kind)
    return kind(**{key: _typed(key, value, hints[key]) for key, value in settings.items() if key in names})


def field_names(kind: type) -> set[str]:
    """Return the names of a dataclass's fields."""
    return {field.name for field in dataclasses.fields(kind)}


def check_names(settings: Iterable[str], *kinds: type) -> None:
    """Raise `UnknownName` for a setting that none of the dataclasses has."""
    known = set().union(*(field_names(kind) for kind in kinds))
    for key in settings:
        if key not in known:
            raise unknown("setting", key, known)


def _typed(key: str, value: Any, hint: Any) -> Any:
    options = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        converted = _convert(value, option)
        if converted is not _WRONG:
            return converted
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue(f"{key} must be finite, not {value}")
    wanted = " or ".join(_describe(option) for option in options)
    raise BadValue(f"{key} must be {wanted}, not {shown(value)}")


_WRONG = object()
# Whole numbers that neither PyTorch, JAX nor a float can hold mean nothing.
_LARGEST = 2**53


def _convert(value: Any, option: Any) -> Any:
    origin = get_origin(option) or option
    if option is type(None):
        return None if value is None else _WRONG
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _WRONG
        items = [_convert(item, get_args(option)[0]) for item in value]
        return _WRONG if any(item is _WRONG for item in items) else tuple(items)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return _WRONG
        numbers = {str(key): _convert(number, float) for key, number in value.items()}
        return _WRONG if any(number is _WRONG for number in numbers.values()) else numbers
    if option is bool or isinstance(value, bool):
        return value if option is bool and isinstance(value, bool) else _WRONG
    if isinstance(value, int | float) and not _is_sane(value):
        return _WRONG
    if option is float and isinstance(value, int | float):
        return float(value)
    if option is int and isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
        return int(value)
    if option is str and isinstance(value, int):
        return str(value)
    return value if isinstance(value, option) else _WRONG


def _is_sane(value: int | float) -> bool:
    return abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value)


def _describe(option: Any) -> str:
    plain = {
        int: "a whole number",
        float: "a number",
        str: "a name",
        bool: "true or false",
        type(None): "absent",
    }
    if option in plain:
        return plain[option]
    origin = get_origin(option)
    if origin is tuple:
        return f"a list ({_describe(get_args(option)[0])} each, like [1, 2] or ['a', 'b'])"
    return "a table of numbers"
