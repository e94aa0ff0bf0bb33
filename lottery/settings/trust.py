"""Trust: what a stored ticket or run names is data, and runs only where the user says so.

Names of the registries are code of this toolkit. A model or criterion `package.module:name` is anybody's code: from a
stored file it is neither imported nor called unless the caller names it again or says `trust`. A stored path of data is
read, and only as arrays (no pickle, no pipe, no device).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pruning.disk.plain import plain
from pruning.errors import BadValue, Untrusted


def given_or_stored(
    kind: str, value: Any, record: Mapping[str, Any], where: object, trust: bool, named: Collection[str] = ()
) -> Any:
    """Return the model or data to use: the caller's, or the one that a stored record names.

    Args:
        kind: `model` or `data`.
        value: the caller's value, or None.
        record: the record of a ticket or a level.
        where: the ticket or run, for the message.
        trust: whether the user wants what the record names to be run.
        named: names that the caller has already given in this process.

    Raises:
        BadValue: the caller gave nothing, and the record has no name.
        Untrusted: the record names code.

    >>> given_or_stored("model", None, {"given": {"model": "mlp"}}, "ticket", False)
    'mlp'
    """
    if value is not None:
        return value
    stored = record.get("given", {}).get(kind)
    if stored is None:
        raise BadValue(f"{where}: its {kind} has no name; say which with {kind}=… (--{kind})")
    check_stored(kind, stored, where, trust or stored in named)
    return stored


def check_stored(kind: str, name: str, where: object, trust: bool) -> None:
    """Raise `Untrusted` for a stored name that stands for somebody's code, where the user did not ask for it to run."""
    if trust or ":" not in name or (kind == "data" and _is_data(name)):
        return
    # A run is studied with the trainer that made it: there is no other way to name it again.
    again = "" if kind == "trainer" else f"name it again with --{kind} ({kind}=…), or "
    raise Untrusted(
        f"{plain(where)} names the {kind} '{plain(name)}'; nothing that a stored file names is run: {again}say --trust "
        "(trust=True)"
    )


def _is_data(name: str) -> bool:
    from es.tasks.environments import is_environment

    return is_environment(name) or Path(name).exists()
