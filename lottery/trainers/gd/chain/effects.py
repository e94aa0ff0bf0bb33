"""Whether a function that a forward pass calls does nothing but compute, seen from its text."""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
import textwrap
import types
from pathlib import Path

import torch

_PYTORCH = str(Path(torch.__file__).parent) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep
# Where others' packages lie, which may be within Python's own folder.
_OTHERS = ("site-packages", "dist-packages")
# What branches, or changes what another name may mean.
_EFFECTS = (
    *(ast.Global, ast.Nonlocal, ast.If, ast.IfExp, ast.While, ast.NamedExpr, ast.With),
    *(ast.Match, ast.BoolOp, ast.Try, ast.AugAssign, ast.Delete),
)


def is_pythons(file: str) -> bool:
    """Say whether a function's file is PyTorch's, or of Python's own library.

    >>> is_pythons(ast.__file__), is_pythons(torch.__file__), is_pythons("/home/me/networks.py")
    (True, True, False)
    """
    if file.startswith((_PYTORCH, "<frozen")):
        return True
    return file.startswith(_PYTHON) and not file.removeprefix(_PYTHON).startswith(_OTHERS)


def only_computes(code: types.CodeType) -> bool:
    """Say whether a function is a plain row of assignments to local names, and of calls whose values are used.

    What cannot be seen in its text is not known: a clock, a random number, the next value of an iterator.

    >>> only_computes(is_pythons.__code__)
    False
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):  # a lambda within a call, or no source at all
        return False
    nodes = list(ast.walk(tree))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return not any(_has_effects(node) or _is_unread(node, read) for node in nodes)


def _is_unread(node: ast.AST, read: set[str]) -> bool:
    """Say whether a node gives a value a name that nothing reads: it is computed for its effect."""
    if not isinstance(node, ast.Assign):
        return False
    return any(isinstance(target, ast.Name) and target.id not in read for target in node.targets)


def _has_effects(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.Attribute | ast.Subscript):
        return not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.FunctionDef):
        return bool(node.decorator_list)
    return isinstance(node, _EFFECTS)
