"""Lottery tickets: find, train, run and study sparse sub-networks that train as well as the dense one.

>>> from lottery import Data, Ticket, find_ticket

Importing this package is cheap: PyTorch and JAX are loaded when something is trained.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

from lottery.state.machine.shadowing import refuse_shadows

__version__ = "0.1.0"

refuse_shadows(__path__)


@cache
def _homes() -> dict[str, str]:
    """Return the module of every exported name, as `__init__.pyi` says it to editors and type checkers."""
    import ast

    # By the loader: a package may lie in an archive.
    stub = ast.parse(__loader__.get_data(os.path.join(__path__[0], "__init__.pyi")))  # type: ignore[name-defined]
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    # Read when it is asked for: importing this package stays cheap.
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("__") or name not in _homes():
        raise AttributeError(f"module 'lottery' has no attribute {name!r}")
    refuse_shadows(__path__)  # the search path may have changed since
    return getattr(import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted([*_homes(), "__version__"])
