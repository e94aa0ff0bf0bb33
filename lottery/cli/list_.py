"""`lottery list`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

KINDS = ("recipes", "models", "data", "environments", "criteria", "trainers", "strategies", "initializers")


def list_(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """List what there is to choose from, each with a line and its source."""
    from lottery.cli.output import print_json
    from pruning.errors import unknown

    if kind not in KINDS:
        raise unknown("list", kind, KINDS)
    items = _recipes() if kind == "recipes" else _registered(kind)
    if as_json:
        print_json({"items": items})
        return
    width = max(len(item["name"]) for item in items)
    for item in items:
        print(f"{item['name']:<{width}}  {item['summary']}\n{'':<{width}}  [{item['source']}]")


def _recipes() -> list[dict[str, Any]]:
    from lottery.recipes import read_recipe, recipe_names

    recipes = {name: read_recipe(name) for name in recipe_names()}
    return [{"name": n, "summary": r["summary"], "source": r["source"]} for n, r in recipes.items()]


def _registered(kind: str) -> list[dict[str, Any]]:
    from es.strategies import STRATEGIES
    from es.tasks.environments import SUITES
    from lottery.datasets import DATASETS
    from lottery.initializers import INITIALIZERS
    from lottery.models import MODELS
    from lottery.trainers import TRAINERS
    from pruning.criteria import CRITERIA

    registries = {
        "models": MODELS,
        "data": DATASETS,
        "criteria": CRITERIA,
        "trainers": TRAINERS,
        "initializers": INITIALIZERS,
        "strategies": STRATEGIES,
        "environments": SUITES,
    }
    return [{"name": e.name, "summary": e.summary, "source": e.source} for e in registries[kind]]
