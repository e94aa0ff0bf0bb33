"""Recipes: named settings with their source, one TOML file each. A recipe is data, not code.

A `-quick` form names its full form under `base` and says only what differs.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from pruning.errors import BadValue, shown, unknown


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe as written: `summary`, `source`, perhaps `base`, and settings.

    Raises:
        UnknownName: no such recipe; the message gives the nearest.
        BadValue: no name at all.

    >>> read_recipe("frankle2019-lenet")["lr"]
    0.0012
    """
    import tomllib

    if not isinstance(name, str):
        raise BadValue(f"recipe must be a name, not {shown(name)} (see: lottery list recipes)")
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def recipe_layers(name: str) -> list[dict[str, Any]]:
    """Return a recipe's settings after those of its base, for `lottery.trainers.choosing.layer`.

    >>> [layer["replicates"] for layer in recipe_layers("frankle2019-lenet-quick")]
    [5, 1]
    """
    recipe = read_recipe(name)
    settings = {key: value for key, value in recipe.items() if key not in ("summary", "source", "base")}
    return [*(recipe_layers(recipe["base"]) if "base" in recipe else []), settings]
