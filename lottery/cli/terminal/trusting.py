"""Whose code a command may run: what the user names, and what stored files name only with `--trust`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Trust = Annotated[
    bool,
    typer.Option("--trust", help="Also import and call what the stored files name as package.module:name."),
]


def look_here(*named: object, trust: bool = False) -> None:
    """Have modules found in the current folder too, as `python -m` does, where the user named a module.

    Otherwise a downloaded folder in which the user stands could lend its files to any import.

    Args:
        *named: models and criteria as the user named them.
        trust: whether the user lets stored files name modules.
    """
    if trust or any(isinstance(name, str) and ":" in name for name in named):
        sys.path.insert(0, "")
