"""Lottery tickets: find, train, run and study sparse sub-networks that train as well as the dense one.

>>> from lottery import Data, Ticket, find_ticket

Importing this package is cheap: PyTorch and JAX are loaded when something is trained.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from lottery.state.machine.shadowing import refuse_shadows

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """Return the module of every exported name, as `__init__.pyi` says it to editors and type checkers."""
    # By the loader: a package may lie in an archive.
    stub = ast.parse(__loader__.get_data(str(Path(__file__).with_suffix(".pyi"))))  # type: ignore[name-defined]
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOMES = _homes()
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

refuse_shadows(__path__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lottery' has no attribute {name!r}")
    refuse_shadows(__path__)  # the search path may have changed since
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
