"""A registry: names to things, each with a one-line summary and a source.

A registry finds its entries by itself: on first use it imports every module of its package, and each module
registers what it defines. A new criterion, model or data set is therefore one new file and no edit elsewhere.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pruning.errors import BadValue, UnknownName, nearest, shown, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing.

    Attributes:
        name: the name that users type.
        value: the thing itself.
        summary: one line.
        source: the paper or page that defines it.
    """

    name: str
    value: T
    summary: str
    source: str


class Registry(Generic[T]):
    """Names to values of one kind.

    Args:
        kind: the kind of the values, for messages ("criterion").
        package: the package whose modules fill the registry; imported on first use. So are the entry points of this
            group that installed packages have: they register more.
        listed: the name under which `lottery list` shows the entries; without one they are not shown.
    """

    def __init__(self, kind: str, package: str, *, listed: str = "") -> None:
        self.kind, self.listed = kind, listed
        self._package = package
        self._entries: dict[str, Entry[T]] = {}
        self._discovered = False

    def add(self, name: str, value: T, summary: str, source: str) -> None:
        """Register `value` under `name`; raises `BadValue` for a name that is taken."""
        if name in self._entries and self._entries[name].value is not value:
            raise BadValue(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, value, summary, source)

    def registering(self, name: str, source: str) -> Callable[[T], T]:
        """Return a decorator that registers a function with its docstring's first line, and returns it as it is."""

        def register(value: T) -> T:
            self.add(name, value, summary_of(value), source)
            return value

        return register

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Entry[T]]:
        return (self._entries[name] for name in self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Entry[T]:
        """Return the entry called `name`; raises `UnknownName` with the nearest names."""
        self._discover()
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        for point in _points(tuple(sys.path)):
            if point.group == self._package:
                point.load()


@functools.cache
def _points(path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return the entry points of all packages that are installed on this path, which are read only once."""
    del path
    found = importlib.metadata.entry_points()
    return tuple(point for group in found.groups for point in found.select(group=group))


def summary_of(function: object) -> str:
    """Return the first docstring line of `function`; raises `BadValue` where there is none.

    >>> summary_of(summary_of)
    'Return the first docstring line of `function`; raises `BadValue` where there is none'
    """
    doc = inspect.getdoc(function)
    if not doc:
        name = getattr(function, "__qualname__", function)
        raise BadValue(f"{name} needs a docstring: its first line is what `lottery list` shows")
    return doc.splitlines()[0].rstrip(".")


def import_by_path(path: str, kind: str) -> object:
    """Import what `package.module:name` points to; raises `UnknownName` with the nearest names.

    Importing somebody's module runs it: what it raises, a `SystemExit` too, is the caller's to explain.

    >>> import_by_path("math:floor", "function")(2.5)
    2
    """
    module_name, _, attribute = path.partition(":")
    if not all((*module_name.split("."), attribute)):
        raise UnknownName(f"{kind} {path!r}: expected package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # the module is there, and lacks one that it imports
            raise
        raise UnknownName(f"{kind} {path!r}: there is no module {error.name!r} on Python's path") from error
    if not hasattr(module, attribute):
        close = nearest(attribute, [name for name, value in vars(module).items() if callable(value)])
        hint = f"; did you mean {' or '.join(f'{module_name}:{c}' for c in close)}?" if close else ""
        raise UnknownName(f"{kind} {path!r}: module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def registered_or_own(
    registry: Registry[T],
    given: str | Callable[..., Any],
    function_of: Callable[[T], Callable[..., Any]],
    made_of: Callable[[str, Callable[..., Any]], T],
) -> T:
    """Return what is registered under a name, or what is made of a function: given as such or as `package.module:name`.

    A function that is registered under some name is that one.

    Args:
        registry: names to things.
        given: a name, a path or a function.
        function_of: of a registered thing, its function.
        made_of: of a name and a function to a thing.

    Raises:
        UnknownName: neither registered nor importable, or no function.
    """
    if isinstance(given, str) and ":" not in given:
        return registry[given].value
    found = import_by_path(given, registry.kind) if isinstance(given, str) else given
    if not callable(found):
        raise UnknownName(f"{registry.kind} {shown(given)} is not a function")
    function = cast(Callable[..., Any], found)
    called = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
    known = (entry.value for entry in registry if function_of(entry.value) is function)
    return next(known, made_of(called, function))


def settings_of_function(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a function that have defaults, with these.

    >>> settings_of_function(lambda weight, rng, *, gain=1.0: None)
    {'gain': 1.0}
    """
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def known_settings(called: str, function: Callable[..., Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return settings that a function takes; raises `UnknownName` for the first that it does not.

    >>> known_settings("low", lambda weight, rng, *, rank=1: None, {"rnk": 2})
    Traceback (most recent call last):
    pruning.errors.UnknownName: unknown setting of low 'rnk': did you mean 'rank'? (known: rank)
    """
    settings, known = dict(given or {}), settings_of_function(function)
    for name in settings:
        if name not in known:
            raise unknown(f"setting of {called}", name, known)
    return settings
