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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pruning.disk.files import MOST_JSON, read_bytes
from pruning.errors import BadValue, FileFormatError, shown, unknown
from pruning.settings.later import LATER

ConfigT = TypeVar("ConfigT")

# Of each group, what a higher layer says replaces what a lower layer said under another name.
EXCLUSIVE = (frozenset({"steps", "epochs"}), frozenset({"levels", "sparsity", "densities"}))

# The parameters of what a setting chooses mean nothing, or something else, to another choice.
PARAMETERS = {"strategy": "strategy_params", "optimizer": "optimizer_params", "schedule": "schedule_params"}

# What a function that makes an optimizer says itself.
OF_OPTIMIZER = frozenset({"lr", "momentum", "nesterov", "weight_decay"})

# What a record begins with where the caller gave a function, which no record holds.
GIVEN = "given: "


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
        for choice, parameters in PARAMETERS.items():
            if values.get(choice, merged.get(choice)) != merged.get(choice):
                merged.pop(parameters, None)
        if is_function(values.get("optimizer")) and not isinstance(values["optimizer"], type):
            merged = {key: value for key, value in merged.items() if key not in OF_OPTIMIZER}
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


def recorded(config: Any) -> dict[str, Any]:
    """Return a configuration as records hold it: plain values, and the names of the caller's functions.

    >>> from lottery.trainers.gd.config import GDConfig
    >>> recorded(GDConfig(optimizer=max))["optimizer"], "optimizer_params" in recorded(GDConfig())
    ('given: max', False)
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    values = {name: getattr(config, name) for name in fields}
    named = {
        name for name, field in fields.items() if not (field.metadata == LATER and values[name] == default_of(field))
    }
    return {name: spoken(value) for name, value in values.items() if name in named}


def is_function(value: Any) -> bool:
    """Say whether a setting stands for a function of the caller's.

    >>> is_function("adam"), is_function("package.module:make"), is_function(max)
    (False, True, True)
    """
    return callable(value) or (isinstance(value, str) and ":" in value)


def spoken(value: Any) -> Any:
    """Return a setting as records and messages name it: a function by its name, anything else as it is.

    >>> spoken(len), spoken(0.5)
    ('given: len', 0.5)
    """
    return f"{GIVEN}{getattr(value, '__name__', type(value).__name__)}" if callable(value) else value


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a dataclass's field.

    >>> default_of(dataclasses.field(default=3)), default_of(dataclasses.field(default_factory=dict))
    (3, {})
    """
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def field_names(kind: type) -> set[str]:
    """Return the names of a dataclass's fields.

    >>> sorted(field_names(dataclasses.make_dataclass("Config", ["lr", "steps"])))
    ['lr', 'steps']
    """
    return {field.name for field in dataclasses.fields(kind)}


def check_names(settings: Iterable[str], *kinds: type) -> None:
    """Raise `UnknownName` for a setting that none of the dataclasses has.

    >>> check_names(["step"], dataclasses.make_dataclass("Config", ["lr", "steps"]))
    Traceback (most recent call last):
    pruning.errors.UnknownName: unknown setting 'step': did you mean 'steps'? (known: lr, steps)
    """
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
        convert = _plain if get_args(option)[1] is Any else lambda number: _convert(number, float)
        entries = {str(key): convert(entry) for key, entry in value.items()}
        return _WRONG if any(entry is _WRONG for entry in entries.values()) else entries
    if origin is Callable:
        return value if callable(value) else _WRONG
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


def _plain(value: Any) -> Any:
    """Return an entry of a table that holds anything plain; lists become tuples."""
    if isinstance(value, list | tuple):
        items = tuple(_plain(item) for item in value)
        return _WRONG if any(item is _WRONG for item in items) else items
    if value is None or isinstance(value, bool | str):
        return value
    return value if isinstance(value, int | float) and _is_sane(value) else _WRONG


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
    if origin is Callable:
        return "a function"
    if isinstance(option, type) and hasattr(option, "ask"):
        return "an object with ask and tell"
    anything = get_args(option)[1:] == (Any,)
    return "a table of numbers, texts, true or false, and lists of them" if anything else "a table of numbers"
