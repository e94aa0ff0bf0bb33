"""State dicts of a sparse network: the names are those of the dense network, which lies one level deeper."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

_INSIDE = "network"


def without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Give what was saved the names of the dense network; versions of modules, which PyTorch keeps aside, as well.

    >>> state = {"network.weight": 1}
    >>> without_prefix(nn.Module(), state, "", None)
    >>> state
    {'weight': 1}
    """
    inner = f"{prefix}{_INSIDE}."
    moved = {prefix + key[len(inner) :]: state.pop(key) for key in list(state) if key.startswith(inner)}
    state.update(moved)
    versions = getattr(state, "_metadata", {})
    for path in [path for path in versions if f"{path}.".startswith(inner)]:
        versions[(prefix + path[len(inner) :]).removesuffix(".")] = versions.pop(path)


def with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give what is loaded the names that it has inside.

    >>> state = {"ticket.weight": 1, "other": 2}
    >>> with_prefix(nn.Module(), state, "ticket.")
    >>> state
    {'other': 2, 'ticket.network.weight': 1}
    """
    moved = {f"{prefix}{_INSIDE}.{key[len(prefix) :]}": state.pop(key) for key in list(state) if key.startswith(prefix)}
    state.update(moved)


def names_inside(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict of the dense network in which modules find their versions by the names that they have inside.

    >>> names_inside(nn.BatchNorm1d(2).state_dict())._metadata["network"]
    {'version': 2}
    """
    versions = getattr(state, "_metadata", None)
    if versions is None:
        return state
    found = OrderedDict(state)
    inside = {f"{_INSIDE}.{path}".removesuffix("."): version for path, version in versions.items()}
    found._metadata = {**versions, **inside}  # pyright: ignore[reportAttributeAccessIssue]
    return found
