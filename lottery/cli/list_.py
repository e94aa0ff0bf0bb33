"""`lottery list`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result
from pruning.registry import Registry, import_by_path

# Imported one at a time: to list the criteria takes neither PyTorch nor JAX.
_REGISTRIES = {
    "models": "lottery.networks.models:MODELS",
    "data": "lottery.data.datasets:DATASETS",
    "data-scores": "lottery.search.data_scores:DATA_SCORES",
    "environments": "es.tasks.environments:SUITES",
    "criteria": "pruning.criteria:CRITERIA",
    "scopes": "pruning.scopes:SCOPES",
    "patterns": "pruning.patterns:PATTERNS",
    "probes": "lottery.search.probes:PROBES",
    "ablations": "lottery.studies.ablation.controls:ABLATIONS",
    "analyses": "lottery.studies.analyses:ANALYSES",
    "trainers": "lottery.trainers:TRAINERS",
    "strategies": "es.strategies:STRATEGIES",
    "moves": "lottery.trainers.gd.moves:MOVES",
    "exports": "lottery.exports:EXPORTS",
    "backends": "pruning.sparse.backends:BACKENDS",
    "convolutions": "pruning.sparse.convolutions:CONVOLUTIONS",
    "sparse-layers": "pruning.sparse.layers:LAYERS",
    "initializers": "lottery.networks.initializers:INITIALIZERS",
}
# What no registry holds: settings, and what PyTorch brings.
_OTHERS = ("optimizers", "schedules", "settings")
KINDS = ("recipes", *_REGISTRIES, *_OTHERS)


def list_(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    as_json: AsJson = False,
) -> Result:
    """List what there is to choose from, each with a line and its source."""
    from pruning.errors import unknown

    if kind not in KINDS:
        raise unknown("list", kind, KINDS)
    items = _recipes() if kind == "recipes" else _registered(kind)
    if as_json:
        return {"items": items}
    width = max(len(item["name"]) for item in items)
    for item in items:
        print(f"{item['name']:<{width}}  {item['summary']}\n{'':<{width}}  [{item['source']}]")
    return None


def _recipes() -> list[dict[str, Any]]:
    from lottery.settings.recipes import read_recipe, recipe_names

    recipes = {name: read_recipe(name) for name in recipe_names()}
    return [{"name": n, "summary": r["summary"], "source": r["source"]} for n, r in recipes.items()]


def _registered(kind: str) -> list[dict[str, Any]]:
    if kind in _OTHERS:
        from lottery.cli.listing import LISTS

        return [dict(item) for item in LISTS[kind]()]
    registry = import_by_path(_REGISTRIES[kind], "registry")
    assert isinstance(registry, Registry)
    return [{"name": e.name, "summary": e.summary, "source": e.source} for e in registry]
