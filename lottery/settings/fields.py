"""Settings: flat names with values, checked against the fields of dataclasses.

Python keywords, command-line flags, TOML files and recipes all become one flat `{name: value}` mapping here, so that
the same thing has the same name and the same default everywhere.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lottery.settings.coercing import coerced
from pruning.disk.files import MOST_JSON, read_bytes
from pruning.errors import BadValue, FileFormatError, shown
from pruning.settings.setting import Setting, settings_of

ConfigT = TypeVar("ConfigT")

# What a record begins with where the caller gave a function, which no record holds.
GIVEN = "given: "


def merge(
    layers: Iterable[Mapping[str, Any]], described: Mapping[str, Setting], exclusive: Iterable[frozenset[str]]
) -> dict[str, Any]:
    """Merge layers of settings; later ones win, and exclude what contradicts them. Tables are merged entry by entry.

    Args:
        layers: the lowest first.
        described: the settings: what belongs to another choice goes with that choice.
        exclusive: groups of which a layer may say one; it then replaces what lower layers said of the group.

    Raises:
        BadValue: one layer says two things that exclude each other.

    >>> merge([{"steps": 100, "lr": 0.1}, {"epochs": 2}], {}, [frozenset({"steps", "epochs"})])
    {'lr': 0.1, 'epochs': 2}
    """
    merged: dict[str, Any] = {}
    groups = list(exclusive)
    for values in layers:
        for group in groups:
            named = sorted(group & values.keys())
            if len(named) > 1:
                raise BadValue(f"give {' or '.join(named)}, not both")
            if named:
                merged = {key: value for key, value in merged.items() if key not in group}
        for name, setting in described.items():
            choice, maker = setting.of, values.get(setting.unless_function or setting.of)
            changed = choice in values and choice in merged and values[choice] != merged[choice]
            if changed or (is_function(maker) and not isinstance(maker, type) and setting.unless_function):
                merged.pop(name, None)
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
        parsed = parse_value(f"--set {key}", value)
        key, _, part = key.partition(".")
        key = key.replace("-", "_")
        before = settings.get(key, {})
        if part and not isinstance(before, dict):
            raise BadValue(f"--set {key} is given as a value and as a table")
        settings[key] = {**before, part: parsed} if part else parsed
    return settings


def parse_pairs(flag: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read the `NAME=VALUE` texts of a flag; a value is TOML, or a plain string where it is not.

    Raises:
        BadValue: a text without `=`.

    >>> parse_pairs("--init-param", ["gain=1.0", "mode=fan-out"])
    {'gain': 1.0, 'mode': 'fan-out'}
    """
    found = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name:
            raise BadValue(f"{flag} takes NAME=VALUE, not {shown(text)}")
        found[name.replace("-", "_")] = parse_value(f"{flag} {name}", value)
    return found


def parse_value(name: str, text: str) -> Any:
    """Return a text as TOML reads it, or as it is where it is no TOML.

    >>> parse_value("--set lr", "0.1"), parse_value("--set optimizer", "sgd")
    (0.1, 'sgd')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError as error:
        raise BadValue(f"{name}: thousands of brackets are no setting") from error
    except ValueError:  # no TOML, or a number of thousands of digits
        return text


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
    return kind(**{key: coerced(key, value, hints[key]) for key, value in settings.items() if key in names})


def recorded(config: Any) -> dict[str, Any]:
    """Return a configuration as records hold it: plain values, and the names of the caller's functions.

    >>> from lottery.trainers.gd.config import GDConfig
    >>> recorded(GDConfig(optimizer=max))["optimizer"], "optimizer_params" in recorded(GDConfig())
    ('given: max', False)
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    values = {name: getattr(config, name) for name in fields}
    named = {
        name
        for name, setting in settings_of(type(config)).items()
        if not (setting.later and values[name] == default_of(fields[name]))
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
