"""Which trainer a search's settings choose, and what follows: how settings merge, and which may be functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lottery.settings.config import SearchConfig
from lottery.settings.fields import GIVEN, is_function, merge
from lottery.settings.functions import function_settings
from lottery.settings.recipes import recipe_layers
from lottery.settings.trust import check_stored
from lottery.trainers import TRAINERS, TrainerKind
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, UnknownName, nearest, shown, unknown
from pruning.registry import import_by_path
from pruning.settings.setting import Setting, settings_of, words_for

# One of these says how far a search prunes.
_DEPTH = frozenset({"levels", "sparsity", "densities"})


def trainer_name(settings: Mapping[str, Any]) -> str:
    """Return the trainer that settings name, or that one of them chooses by itself.

    >>> trainer_name({}), trainer_name({"trainer": "es"}), trainer_name({"train": max})
    ('gd', 'es', 'function')
    """
    named = settings.get("trainer")
    if named is not None:
        if not isinstance(named, str):
            raise BadValue(f"trainer must be a name, not {shown(named)}")
        return named
    started = (entry.name for entry in TRAINERS if entry.value.started_by in settings)
    return next(started, SearchConfig.trainer)


def trainer_kind(name: str) -> TrainerKind:
    """Return a trainer by its name, or by `package.module:NAME`.

    Raises:
        UnknownName: a name that is none.
        BadValue: a path to something else.

    >>> sorted(trainer_kind("es").length)
    ['generations']
    """
    if ":" not in name:
        return TRAINERS[name].value
    with users_code(f"importing trainer {name!r}", BadValue):
        found = import_by_path(name, "trainer")
    if not isinstance(found, TrainerKind):
        raise BadValue(f"trainer {name!r} must be a lottery.trainers.TrainerKind, not {shown(found)}")
    return found


def kinds(name: str) -> tuple[type, type]:
    """Return the two configurations that the settings of a search with this trainer fill."""
    return SearchConfig, trainer_kind(name).config


def layer(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings; later ones win, and exclude what contradicts them. Tables are merged entry by entry.

    Raises:
        BadValue: one layer says two things that exclude each other.

    >>> layer({"steps": 100, "lr": 0.1}, {"epochs": 2})
    {'lr': 0.1, 'epochs': 2}
    """
    everything: dict[str, Any] = {}
    for values in layers:
        everything |= values
    kind = trainer_kind(trainer_name(everything))
    described: dict[str, Setting] = {}
    for config in (*(entry.value.config for entry in TRAINERS), kind.config, SearchConfig):
        described |= settings_of(config)
    return merge(layers, described, (_DEPTH, kind.length))


def with_recipe(recipe: str | None, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a recipe, where there is one, with the layers above it.

    Raises:
        UnknownName: no such recipe.
        BadValue: layers that ask for another trainer than the one that the recipe is for.

    >>> with_recipe("lange2023-cartpole", {"trainer": "gd"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: recipe 'lange2023-cartpole' is for trainer 'es', and this search uses trainer 'gd': ...
    """
    if recipe is None:
        return layer(*layers)
    below = recipe_layers(recipe)
    merged = layer(*below, *layers)
    made_for, used = trainer_name(layer(*below)), trainer_name(merged)
    if made_for != used:
        raise BadValue(
            f"recipe {recipe!r} is for trainer {made_for!r}, and this search uses trainer {used!r}: leave one of the "
            "two out"
        )
    return merged


def check_names(settings: Mapping[str, Any]) -> None:
    """Raise `UnknownName` for a setting that neither the search nor its trainer has, with the way to the right one.

    >>> check_names({"learning_rate": 0.1})
    Traceback (most recent call last):
    pruning.errors.UnknownName: unknown setting 'learning_rate': here it is called 'lr'
    >>> check_names({"population": 8})
    Traceback (most recent call last):
    pruning.errors.UnknownName: unknown setting 'population': it is of trainer 'es', and this search uses trainer 'gd'
    """
    trainer = trainer_name(settings)
    known = {name for kind in kinds(trainer) for name in settings_of(kind)}
    for name in settings:
        if name not in known:
            raise _unknown_setting(name, trainer, known)


def function_names() -> tuple[str, ...]:
    """Return the settings, of the search or of any trainer, that may be functions of the caller's.

    >>> "optimizer" in function_names(), "lr" in function_names()
    (True, False)
    """
    configs = (SearchConfig, *(entry.value.config for entry in TRAINERS))
    names = (name for config in configs for name in function_settings(config))
    return tuple(dict.fromkeys(names))


def check_stored_functions(settings: Mapping[str, Any], where: object, trust: bool) -> None:
    """Raise `Untrusted` for stored settings that name code of somebody's, where nobody asked for it to run.

    Args:
        settings: as a record holds them.
        where: the ticket or run, for the message.
        trust: whether the user wants what the record names to be run.

    >>> check_stored_functions({"optimizer": "theirs:make"}, "runs/a", trust=True)
    >>> check_stored_functions({"optimizer": "theirs:make"}, "runs/a", trust=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.Untrusted: ...
    """
    check_stored("trainer", str(settings.get("trainer", "")), where, trust)
    for name in function_names():
        value = settings.get(name)
        if isinstance(value, str) and not value.startswith(GIVEN):
            check_stored(name, value, where, trust)


def functions_for(functions: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some functions that a search with these settings was given.

    Args:
        functions: by setting; None for none.
        settings: the settings of the search, as its record holds them.

    Raises:
        UnknownName: a setting that is no function of any trainer.

    >>> functions_for({"optimizer": max, "strategy": min}, {"optimizer": "given: max"})
    {'optimizer': <built-in function max>}
    """
    for name in functions or {}:
        if name not in function_names():
            raise unknown("function", name, function_names())
    return {name: value for name, value in (functions or {}).items() if is_function(settings.get(name))}


def _unknown_setting(name: str, trainer: str, known: set[str]) -> UnknownName:
    here = dict(words_for(kinds(trainer)))
    if name in here:
        return UnknownName(f"unknown setting {name!r}: here it is called {here[name]!r}")
    owners = dict(_elsewhere(name, trainer))
    length = sorted(trainer_kind(trainer).length)
    if length and any(word in TRAINERS[owner].value.length for owner, word in owners.items()):
        return UnknownName(f"unknown setting {name!r}: trainer {trainer!r} counts in {' or '.join(map(repr, length))}")
    if owners:
        word = next(iter(owners.values()))
        called = "" if word == name else f", where it is called {word!r}"
        of = f"trainer{'s' if len(owners) > 1 else ''} {' and '.join(map(repr, owners))}"
        return UnknownName(f"unknown setting {name!r}: it is of {of}{called}, and this search uses trainer {trainer!r}")
    close = nearest(name, known)
    hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
    return UnknownName(f"unknown setting {shown(name)}{hint} (lottery list settings shows all {len(known)})")


def _elsewhere(name: str, trainer: str) -> Iterator[tuple[str, str]]:
    """Yield the other trainers that have such a setting, and its name there."""
    for entry in TRAINERS:
        words = {own: own for own in settings_of(entry.value.config)} | dict(words_for([entry.value.config]))
        if entry.name != trainer and name in words:
            yield entry.name, words[name]
