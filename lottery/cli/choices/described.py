"""Every setting of a search and of all trainers, as help texts and lists show it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lottery.settings.coercing import described
from lottery.settings.config import SearchConfig
from lottery.settings.fields import default_of
from lottery.trainers import TRAINERS
from lottery.trainers.choosing import trainer_kind
from pruning.settings.setting import Setting, settings_of

# Where a setting belongs, if it is no trainer's.
OF_SEARCH = "the search"


@dataclass(frozen=True)
class Described:
    """A setting with everything that people are told of it.

    Attributes:
        name: as in Python; flags have `-` in the place of `_`.
        where: the search, or the name of its trainer.
        setting: its help, range and choices.
        hint: its type.
        default: its default.
    """

    name: str
    where: str
    setting: Setting
    hint: Any
    default: Any

    @property
    def type(self) -> str:
        """The type in words, as messages say it."""
        return described(self.hint)

    @property
    def default_text(self) -> str:
        """The default as people would write it; nothing where there is none.

        >>> [each.default_text for each in settings_named("levels")]
        ['12']
        """
        if self.default is None or self.default in ("", (), {}):
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def allowed(self) -> str:
        """The choices or the range, in words; nothing where all values are allowed."""
        return " | ".join(self.setting.names()) or self.setting.range()


@cache
def _of(kind: type, where: str) -> tuple[Described, ...]:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return tuple(
        Described(name, where, setting, hints[name], default_of(fields[name]))
        for name, setting in settings_of(kind).items()
    )


def search_settings() -> Sequence[Described]:
    """Return the settings of a search, in their order."""
    return _of(SearchConfig, OF_SEARCH)


def trainer_settings() -> Sequence[Described]:
    """Return the settings of all trainers, trainer by trainer; those of the default trainer come first."""
    entries = sorted(TRAINERS, key=lambda entry: (entry.name != SearchConfig.trainer, entry.name))
    return [each for entry in entries for each in _of(entry.value.config, entry.name)]


def settings_of_trainer(name: str) -> Sequence[Described]:
    """Return the settings of one trainer, by its name or as `package.module:NAME`."""
    return _of(trainer_kind(name).config, name)


def settings_named(name: str) -> list[Described]:
    """Return the settings of one name: the search's, or one for each trainer that has it.

    >>> [each.where for each in settings_named("stride")]
    []
    """
    return [each for each in (*search_settings(), *trainer_settings()) if each.name == name]


def by_name(settings: Sequence[Described]) -> Mapping[str, list[Described]]:
    """Return settings by name, in the order in which names come first.

    >>> len(by_name(trainer_settings())["batch_size"]) > 1
    True
    """
    found: dict[str, list[Described]] = {}
    for each in settings:
        found.setdefault(each.name, []).append(each)
    return found
