"""Command-line flags that follow from settings: one for each, with its help, its default and its choices."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import typer

from lottery.cli.choices.described import Described, by_name
from lottery.settings.fields import parse_assignments, parse_value
from pruning.errors import BadValue
from pruning.settings.setting import Setting

# As many names as this stand in the usage line itself.
_SHORT = 4


def with_flags(function: Callable[..., Any], settings: Sequence[Described]) -> Callable[..., Any]:
    """Return a command with a flag for each of these settings; the function gets those that were given, as `settings`.

    Args:
        function: a command whose parameter `settings` takes a mapping.
        settings: of the search and of all trainers; those of one name become one flag.

    >>> from lottery.cli.choices.described import settings_named
    >>> def command(settings, quiet: bool = False) -> None: ...
    >>> list(inspect.signature(with_flags(command, settings_named("levels"))).parameters)
    ['levels', 'quiet']
    """
    named = by_name(settings)
    own = [each for each in inspect.signature(function, eval_str=True).parameters.values() if each.name != "settings"]
    arguments = [each for each in own if each.default is inspect.Parameter.empty]
    flags = [_parameter(name, same) for name, same in named.items()]

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        values = {name: given.pop(name) for name in named}
        read = {name: _read(name, named[name], value) for name, value in values.items() if value not in (None, [])}
        return function(settings=read, **given)

    parameters = [*arguments, *flags, *(each for each in own if each not in arguments)]
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__signature__ = inspect.Signature(keyword, return_annotation=Any)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in keyword}
    return command


def flag(name: str) -> str:
    """Return the flag of a setting.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def _parameter(name: str, same: Sequence[Described]) -> inspect.Parameter:
    kind, first = _kind(same), same[0].setting
    option = typer.Option(
        f"{flag(name)}/--no-{name.replace('_', '-')}" if kind is bool else flag(name),
        help=_help(same),
        rich_help_panel=first.group or "Options",
        show_default=False,
        metavar=None if kind is bool else _metavar(kind, same),
        autocompletion=_completion([each.setting for each in same]),
    )
    wanted = list[str] | None if kind is tuple or kind is dict else kind | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[wanted, option])


def _kind(same: Sequence[Described]) -> Any:
    """Return what the command line reads: a plain type; `tuple` and `dict` for what is given several times."""
    kinds = {_plain_kind(each.hint) for each in same}
    return kinds.pop() if len(kinds) == 1 else str


def _plain_kind(hint: Any) -> Any:
    options = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kinds = [option for option in options if option is not type(None)]
    if len(kinds) == 1:
        origin = get_origin(kinds[0])
        if origin is tuple:
            return tuple
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return dict
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float, str) else str


def _read(name: str, same: Sequence[Described], value: Any) -> Any:
    """Return a flag's value as a setting's."""
    kind = _kind(same)
    if kind is dict:
        bare = next((text for text in value if "=" not in text), None)
        if bare is not None:
            raise BadValue(f"{flag(name)} takes NAME=VALUE, not {bare!r}")
        return parse_assignments(f"{name}.{text}" for text in value)[name]
    if kind is tuple:
        return [entry for text in value for entry in _entries(name, text, of_texts=get_args(same[0].hint)[0] is str)]
    numbers = any({int, float} & set(get_args(each.hint)) for each in same)
    return parse_value(flag(name), value) if kind is str and numbers and _is_number(value) else value


def _entries(name: str, text: str, of_texts: bool) -> list[Any]:
    """Return the entries that one use of a flag gives: one, a list in brackets, or numbers with commas between."""
    if text.startswith("["):
        parsed = parse_value(flag(name), text)
        return parsed if isinstance(parsed, list) else [parsed]
    return [text] if of_texts else [parse_value(flag(name), each) for each in text.split(",")]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _help(same: Sequence[Described]) -> str:
    """Return the flag's help: the first sentence of each setting, with its trainer, its list and its default."""
    listed = " or ".join(dict.fromkeys(each.setting.listed for each in same if each.setting.listed))
    text = f"{_sentences(same)} (lottery list {listed})" if listed else _sentences(same)
    text = f"{text} Repeatable." if _kind(same) in (tuple, dict) else text
    defaults = {each.where: each.default_text for each in same if each.default_text}
    if not defaults:
        return text
    if len({each.default_text for each in same}) == 1:
        return f"{text} [default: {next(iter(defaults.values()))}]"
    return f"{text} [default: {', '.join(f'{where}: {default}' for where, default in defaults.items())}]"


def _sentences(same: Sequence[Described]) -> str:
    said: dict[str, list[str]] = {}
    for each in same:
        said.setdefault(each.setting.summary, []).append(each.where)
    texts = [f"{', '.join(where)}: {text}" if len(said) > 1 else text for text, where in said.items()]
    return " ".join(texts)


def _metavar(kind: Any, same: Sequence[Described]) -> str:
    names = same[0].setting.names()
    if names and len(names) <= _SHORT:
        return "|".join(names)
    otherwise = "NAME" if same[0].setting.listed else "VALUE"
    return {dict: "NAME=VALUE", int: "N", float: "X", tuple: "VALUE"}.get(kind, otherwise)


def _completion(settings: Sequence[Setting]) -> Callable[[str], list[str]]:
    """Return a function that says what may stand in the place of a half-written value."""

    def complete(incomplete: str) -> list[str]:
        from lottery.cli.choices.listing import list_names

        known: dict[str, None] = {}
        for setting in settings:
            known |= dict.fromkeys(setting.names() or (list_names(setting.listed) if setting.listed else ()))
        return [name for name in known if name.startswith(incomplete)]

    return complete
