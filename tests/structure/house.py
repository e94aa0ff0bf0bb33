"""The house as its imports draw it: modules, which one imports which, and floors."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("lottery", "es", "pruning")

FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lottery": (
        ("__main__",),
        ("cli",),
        ("bench",),
        ("api", "exporting", "studies"),
        ("exports", "search"),
        ("objective", "trainers", "runs"),
        ("networks",),
        ("data", "results"),
        ("settings", "state"),
    ),
    "es": (
        ("trainer",),
        ("evolution",),
        ("tasks", "jax_models"),
        ("config", "device", "population", "schedules", "translation"),
        ("coordinates", "network", "objectives", "program_cache", "record", "strategies"),
    ),
    "pruning": (
        ("sparse",),
        ("compaction", "criteria", "initializers", "mask_holder", "repairs", "settings", "watch"),
        ("alive_rows", "effective", "jobs", "overlap", "selection", "starts", "torch_modules"),
        ("mask",),
        ("pytrees", "scopes"),
        ("copies", "masks", "patterns"),
        ("calls", "disk", "ladder", "registry", "scores"),
        ("errors", "hardware", "uses"),
    ),
}
"""What stands on which floor, the highest first: a room imports from lower floors only."""


@cache
def modules() -> dict[str, Path]:
    """Return every module of the three packages by its dotted name."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return which modules every module imports, anywhere in it: in functions and for types, too."""
    return {name: frozenset(_named(path)) - {name} for name, path in modules().items()}


def below(folder: str) -> dict[str, set[str]]:
    """Return which parts of a package (its modules and sub-packages) import which others of it."""
    arrows: dict[str, set[str]] = {}
    for name, targets in imports().items():
        if (here := _part(name, folder)) is None:
            continue
        there = {part for part in (_part(target, folder) for target in targets) if part is not None}
        arrows.setdefault(here, set()).update(there - {here})
    return arrows


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names of one circle, or an empty list.

    >>> circle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ['b', 'c']
    """
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> list[str]:
        if name in way:
            return list(way[way.index(name) :])
        if name in done:
            return []
        for target in sorted(arrows.get(name, ())):
            if found := walk(target, (*way, name)):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, ()))), [])


def public_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield module and definition of every function that others may call."""
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield name, node


def _named(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in modules():
                    yield full
                elif node.module in modules():
                    yield node.module


def _part(name: str, folder: str) -> str | None:
    """Return the part of a package that a module belongs to; the package's own `__init__` is none of them."""
    return name[len(folder) + 1 :].split(".")[0] if name.startswith(f"{folder}.") else None
