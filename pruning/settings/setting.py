"""A setting: one field of a configuration, with its help, its range and its choices.

    levels: int = setting(12, "Number of times to prune.", least=0)

Command-line flags, `--set`, TOML files, keywords of `find_ticket`, `lottery list settings`, the reference page and the
checks of values all follow from this one line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pruning.errors import BadValue, shown, unknown

Declared = Mapping[str, Any]
"""The arguments of `setting` for one setting that several configurations have, or that a file of its own describes."""

_KEY = "setting"


@dataclass(frozen=True)
class Setting:
    """The description of one setting.

    Attributes:
        help: sentences for people; the first one stands beside the command-line flag.
        least: the least value, itself allowed; None where there is none.
        most: the largest value, itself allowed.
        above: a bound that the value must be more than.
        below: a bound that the value must be less than.
        noun: what a number is ("a fraction"), for the message that refuses one out of range.
        choices: the only values, or a function that returns them.
        listed: the kind of `lottery list` that shows names for it ("criteria"); other values may be allowed too.
        group: the heading under which help texts show it.
        of: another setting, to one of whose choices this one belongs: another choice there takes it away.
        unless_function: another setting: where that is a function, the function says this one by itself.
        words: other words that people type for it.
        takes: what else `find_ticket` takes for it, as a type in Python: "int", "Callable[..., Any]".
        later: whether it came after runs were made without it: its default is then not recorded, so that those runs
            are found again.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    noun: str = ""
    choices: tuple[str, ...] | Callable[[], Sequence[str]] = ()
    listed: str = ""
    group: str = ""
    of: str = ""
    unless_function: str = ""
    words: tuple[str, ...] = ()
    takes: str = ""
    later: bool = False

    @property
    def summary(self) -> str:
        """The first sentence of the help.

        >>> Setting("Learning rate, i.e. step size. By default 0.1.").summary
        'Learning rate, i.e. step size.'
        """
        return re.split(r"(?<=\.) (?=[A-Z`])", self.help)[0]

    def names(self) -> tuple[str, ...]:
        """Return the only values, or nothing where others are allowed too."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def range(self) -> str:
        """Return the allowed numbers in words, or nothing where all are.

        >>> Setting("A fraction.", above=0, below=1).range(), Setting("A count.", least=1).range()
        ('more than 0 and less than 1', '1 or more')
        """
        high = "" if self.most is not None and self.most >= _ABSURD else self._high()
        return " and ".join(filter(None, (self._low(), high)))

    def _low(self) -> str:
        if self.above is not None:
            return f"more than {self.above:,}"
        return f"{self.least:,} or more" if self.least is not None else ""

    def _high(self) -> str:
        if self.below is not None:
            return f"less than {self.below:,}"
        return f"at most {self.most:,}" if self.most is not None else ""

    def check(self, name: str, value: Any) -> None:
        """Raise `BadValue` for a number out of range, `UnknownName` for none of the choices; None passes.

        >>> Setting("Learning rate.", above=0).check("lr", 0)
        Traceback (most recent call last):
        pruning.errors.BadValue: lr must be more than 0, not 0
        """
        if value is None:
            return
        if self.choices and value not in self.names():
            raise unknown(name, value, self.names())
        if isinstance(value, int | float):
            self._check_number(name, value)

    def _check_number(self, name: str, value: float) -> None:
        low = (self.above is not None and not value > self.above) or (self.least is not None and value < self.least)
        high = (self.below is not None and not value < self.below) or (self.most is not None and value > self.most)
        if not math.isfinite(value) and (high or low or math.isnan(value)):
            raise BadValue(f"{name} must be finite, not {shown(value)}")
        if low or high:
            bounds = f"{self.noun}, {self.range()}" if self.noun else self._low() if low else self._high()
            raise BadValue(f"{name} must be {bounds}, not {shown(value)}")


# A largest value that only keeps mistakes out; nobody needs to read it.
_ABSURD = 10_000


def setting(default: Any = dataclasses.MISSING, help: str = "", **described: Any) -> Any:
    """Return the dataclass field of a setting.

    Args:
        default: its value where nobody says another; a dictionary is copied for every configuration.
        help: sentences for people; the first one stands beside the command-line flag.
        **described: fields of `Setting`.

    Raises:
        BadValue: no help text.

    >>> config = dataclasses.make_dataclass("Config", [("steps", int, setting(10, "Number of steps.", least=1))])
    >>> config().steps, settings_of(config)["steps"].help
    (10, 'Number of steps.')
    >>> setting(3)
    Traceback (most recent call last):
    pruning.errors.BadValue: a setting needs a help text: setting(default, "What it does.")
    """
    if not help.strip():
        raise BadValue('a setting needs a help text: setting(default, "What it does.")')
    metadata = {_KEY: Setting(help=" ".join(help.split()), **described)}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def settings_of(kind: type) -> Mapping[str, Setting]:
    """Return the settings of a configuration by name, in its order.

    Raises:
        BadValue: a field that is no setting.

    >>> settings_of(dataclasses.make_dataclass("Config", [("steps", int, 10)]))
    Traceback (most recent call last):
    pruning.errors.BadValue: Config.steps needs a help text: declare it as setting(10, "What it does.")
    """
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(kind):
        described = field.metadata.get(_KEY)
        if described is None:
            default = "" if field.default is dataclasses.MISSING else f"{field.default!r}, "
            raise BadValue(
                f'{kind.__name__}.{field.name} needs a help text: declare it as setting({default}"What it does.")'
            )
        found[field.name] = described
    return found


def check_settings(config: object) -> None:
    """Raise `BadValue` or `UnknownName` for the first value of a configuration that is out of range or no choice.

    >>> config = dataclasses.make_dataclass("Config", [("steps", int, setting(10, "Number of steps.", least=1))])
    >>> check_settings(config(steps=0))
    Traceback (most recent call last):
    pruning.errors.BadValue: steps must be 1 or more, not 0
    """
    for name, described in settings_of(type(config)).items():
        described.check(name, getattr(config, name))


def words_for(kinds: Sequence[type]) -> Iterator[tuple[str, str]]:
    """Yield the other words that people type for settings, each with the setting's name.

    >>> config = dataclasses.make_dataclass("C", [("lr", float, setting(0.1, "Step size.", words=("learning_rate",)))])
    >>> dict(words_for([config]))
    {'learning_rate': 'lr'}
    """
    for kind in kinds:
        for name, described in settings_of(kind).items():
            yield from ((word, name) for word in described.words)
