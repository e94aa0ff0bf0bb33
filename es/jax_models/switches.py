"""Switches of a call and random keys, filled in: a network is called as it is used, not as it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Keywords = dict[str, bool | None]

_TRAINING = frozenset({"train", "training", "is_training"})
_EVALUATION = frozenset({"deterministic", "inference", "use_running_average"})
_RANDOM = frozenset({"key", "keys", "rng", "rngs", "rng_key", "prng_key"})
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def evaluating(apply: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Return a function as `apply(tree, inputs)`, with the switches and keys that it needs besides filled in.

    >>> evaluating(lambda params, rng, x, train: (params, rng, x, train))(1, 2)
    (1, None, 2, False)
    """
    parameters = _parameters(apply)
    filled = _fill(required(apply))
    if not filled:
        return apply
    order = [name for name, p in parameters.items() if p.kind in _POSITIONAL and p.default is p.empty]
    keywords = {name: value for name, value in filled.items() if name not in order}

    def called(tree: Any, inputs: Any) -> Any:
        rest = iter((tree, inputs))
        positional = [filled[name] if name in filled else next(rest) for name in order]
        return apply(*positional, *rest, **keywords)

    return called


def switches_of(call: Callable[..., Any]) -> Keywords:
    """Return the switches of a module's call, and None for a random key that it cannot do without.

    >>> switches_of(lambda x, train, rng, key=None, deterministic=False: x)
    {'train': False, 'rng': None, 'deterministic': True}
    """
    parameters = _parameters(call)
    return _fill(name for name in parameters if name not in _RANDOM or name in required(call))


def required(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a function cannot be called without.

    >>> required(lambda params, x, train=False, *rest: x)
    ['params', 'x']
    """
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, p in _parameters(function).items() if p.default is p.empty and p.kind not in variadic]


def _fill(names: Iterable[str]) -> Keywords:
    values: Keywords = {}
    for name in names:
        if name in _RANDOM:
            values[name] = None
        elif name in _TRAINING or name in _EVALUATION:
            values[name] = name in _EVALUATION
    return values


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return {}
