"""A value as the type of its setting: converted where nothing is lost, refused in one line otherwise."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

import msgspec

from pruning.errors import BadValue, shown

# Whole numbers that neither PyTorch, JAX nor a float can hold mean nothing.
_LARGEST = 2**53

_LISTS = {int: "[1, 2]", float: "[0.5, 0.2]", str: "['a', 'b']"}
_PLAIN = {int: "a whole number", float: "a number", str: "a name", bool: "true or false", type(None): "absent"}


def coerced(name: str, value: Any, hint: Any) -> Any:
    """Return a value as the type of its setting.

    A whole number is a number too, 3.0 is a whole number, and a name may be a number (`rewind=500`); a list may stand
    for a tuple, and a NumPy number for a plain one. Nothing else is converted: neither `"3"` nor `True` is a 3.

    Args:
        name: the name of the setting, for the message.
        value: whatever the user gave.
        hint: the type of the dataclass field.

    Raises:
        BadValue: a value of another type, or a number that is not finite.

    >>> coerced("levels", 3.0, int), coerced("rewind", 500, str), coerced("skip", ["a"], tuple[str, ...])
    (3, '500', ('a',))
    >>> coerced("levels", "many", int | None)
    Traceback (most recent call last):
    pruning.errors.BadValue: levels must be a whole number or absent, not 'many'
    """
    options = _options(hint)
    if any(_is_custom(option) and _is_such(value, option) for option in options):
        return value
    plain = tuple(option for option in options if not _is_custom(option))
    try:
        found = msgspec.convert(_eased(value, plain), typing.Union[plain], str_keys=True)  # noqa: UP007
        if _is_sane(found):
            return found
    except (msgspec.ValidationError, OverflowError):
        pass  # the message below says more
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue(f"{name} must be finite, not {value}")
    raise BadValue(f"{name} must be {described(hint)}, not {shown(value)}")


def described(hint: Any) -> str:
    """Return the type of a setting in words.

    >>> described(int | None), described(tuple[str, ...])
    ('a whole number or absent', "a list (a name each, like ['a', 'b'])")
    >>> described(float | typing.Literal["optimal"])
    "a number or 'optimal'"
    """
    return " or ".join(_describe(option) for option in _options(hint))


def takes_function(hint: Any) -> bool:
    """Say whether a setting of this type may be a function.

    >>> takes_function(str | Callable[..., Any]), takes_function(str)
    (True, False)
    """
    return any(get_origin(option) is Callable for option in _options(hint))


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _is_custom(option: Any) -> bool:
    """Say whether an option is a function, or a class of objects."""
    return (
        get_origin(option) is Callable
        or get_args(option)[:1] == (object,)
        or (get_origin(option) is None and option not in _PLAIN)
    )


def _is_such(value: Any, option: Any) -> bool:
    if get_origin(option) is Callable:
        return callable(value)
    if get_origin(option) is tuple:
        return isinstance(value, tuple)
    return isinstance(value, option) and not isinstance(value, str)


def _eased(value: Any, options: tuple[Any, ...]) -> Any:
    """Return a value in the form in which the library takes it, where that is the same value."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a number of NumPy's, PyTorch's or JAX's
    elif getattr(value, "ndim", 0) > 0 and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) > _LARGEST):
        return value
    if isinstance(value, float) and value.is_integer() and int in options and float not in options:
        return int(value)
    if isinstance(value, int) and str in options and int not in options and float not in options:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _as_tuple(entry) for key, entry in value.items()}
    return value


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_as_tuple(entry) for entry in value)
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _is_sane(value: Any) -> bool:
    """Say whether all numbers in a value are finite and exact, and all else is plain."""
    if isinstance(value, Mapping):
        return all(_is_sane(entry) for entry in value.values())
    if isinstance(value, tuple):
        return all(_is_sane(entry) for entry in value)
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, str)


def _describe(option: Any) -> str:
    if option in _PLAIN:
        return _PLAIN[option]
    origin = get_origin(option)
    if origin is tuple and get_args(option)[0] is object:
        return "a name with an object"
    if origin is typing.Literal:
        return " or ".join(repr(each) for each in get_args(option))
    if origin in (tuple, Sequence):
        kind = get_args(option)[0]
        return f"a list ({_describe(kind)} each, like {_LISTS.get(kind, '[1, 2]')})"
    if origin is Callable:
        return "a function"
    if origin is None:
        return "an object with ask and tell" if hasattr(option, "ask") else f"a {option.__name__}"
    anything = get_args(option)[1:] == (Any,)
    return "a table of numbers, texts, true or false, and lists of them" if anything else "a table of numbers"
