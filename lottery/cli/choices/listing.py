"""What `lottery list` shows: the registries, found in the source, and what no registry holds."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pruning.registry import Registry, import_by_path

Item = dict[str, str]

_PACKAGES = ("lottery", "pruning", "es")


@dataclass(frozen=True)
class _Found:
    """A registry that `lottery list` shows.

    Attributes:
        path: where it is, as `package.module:NAME`.
        summary: the first line of its package.
    """

    path: str
    summary: str


def kinds() -> list[tuple[str, str]]:
    """Return what can be listed, sorted, each with a line.

    >>> [name for name, _ in kinds()][:3]
    ['ablations', 'analyses', 'backends']
    """
    texts = {name: found.summary for name, found in _registries().items()}
    texts |= {name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in _others().items()}
    return sorted((name, f"{text.partition('. ')[0].removesuffix('.')}.") for name, text in texts.items())


def listed(kind: str) -> list[Item]:
    """Return the names of one kind, each with a line and its source."""
    others = _others()
    if kind in others:
        return [dict(item) for item in others[kind]()]
    registry = import_by_path(_registries()[kind].path, "registry")
    assert isinstance(registry, Registry)
    return [{"name": entry.name, "summary": entry.summary, "source": entry.source} for entry in registry]


def list_names(kind: str) -> Sequence[str]:
    """Return the names of one kind.

    >>> list_names("schedules")[:3]
    ['constant', 'milestones', 'cosine']
    """
    return [item["name"] for item in listed(kind)]


@cache
def _registries() -> Mapping[str, _Found]:
    """Return the registries that say `listed`, by that name.

    They are read in the source: importing every package of the house takes PyTorch and JAX.
    """
    found: dict[str, _Found] = {}
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        root = Path(spec.submodule_search_locations[0])
        for file in sorted(root.rglob("__init__.py")):
            text = file.read_text(encoding="utf-8")
            if "listed=" in text:
                module = ".".join((package, *file.parent.relative_to(root).parts))
                found |= dict(_declared(module, ast.parse(text)))
    return found


def _declared(module: str, tree: ast.Module) -> Iterator[tuple[str, _Found]]:
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call):
            for keyword in node.value.keywords:
                if keyword.arg == "listed":
                    yield str(ast.literal_eval(keyword.value)), _Found(f"{module}:{node.target.id}", summary)


def _recipes() -> list[Item]:
    """Recipes: named settings with their source."""
    from lottery.settings.recipes import read_recipe, recipe_names

    recipes = {name: read_recipe(name) for name in recipe_names()}
    return [{"name": n, "summary": r["summary"], "source": r["source"]} for n, r in recipes.items()]


def _settings() -> list[Item]:
    """Settings of a search and of its trainers: type, default, choices, and where they belong."""
    from lottery.cli.choices.described import OF_SEARCH, search_settings, trainer_settings

    return [
        {
            "name": each.name,
            "summary": each.setting.help,
            "source": each.where if each.where == OF_SEARCH else f"trainer {each.where}",
            "type": each.type,
            "default": each.default_text,
            "allowed": each.allowed,
        }
        for each in (*search_settings(), *trainer_settings())
    ]


def _others() -> Mapping[str, Callable[[], Sequence[Mapping[str, str]]]]:
    """Return what no registry holds, by name: recipes, settings, and what the trainers list."""
    from lottery.trainers import TRAINERS

    found: dict[str, Callable[[], Sequence[Mapping[str, str]]]] = {"recipes": _recipes, "settings": _settings}
    for entry in TRAINERS:
        found |= entry.value.lists
    return found
