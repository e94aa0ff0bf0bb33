"""From the keywords of a caller in Python to a request for a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lottery.runs.given import Given
from lottery.search.frame.resolving import default_data
from lottery.search.preparing.preparing import Request
from lottery.settings.fields import read_toml
from lottery.trainers.choosing import with_recipe
from pruning.errors import BadValue


def request_of(
    given: Given, settings: Mapping[str, Any], recipe: str | None, config: str | Path | Mapping[str, Any] | None
) -> Request:
    """Return the request that a model, data and keywords make.

    Args:
        given: model, data, loss, metric and `forward`; what is None may be named by a file or a recipe.
        settings: of the search and of its trainer; None is left out.
        recipe: a recipe's name; everything else beats it.
        config: a TOML file or a mapping of settings.

    Raises:
        UsageError: a wrong name, or settings that exclude each other.

    >>> request_of(Given(), {"levels": 2, "lr": None}, None, {"data": "digits"}).settings
    {'levels': 2, 'data': 'digits'}
    """
    if "rewind" in settings and settings["rewind"] is None:
        raise BadValue(
            "rewind=None could mean either: say rewind='none' to keep the trained weights, or leave it out for 0"
        )
    file = read_toml(Path(config)) if isinstance(config, str | Path) else dict(config or {})
    recipe = recipe or file.get("recipe")
    file.pop("recipe", None)
    merged = with_recipe(recipe or None, file, {key: value for key, value in settings.items() if value is not None})
    model, data, metric = given.model, given.data, given.metric
    model = merged.pop("model", None) if model is None else model
    data = merged.pop("data", default_data(merged)) if data is None else data
    merged |= {key: value for key, value in (("model", model), ("data", data)) if isinstance(value, str)}
    if isinstance(metric, str):
        merged["metric"], metric = metric, None
    criterion = merged.pop("criterion") if callable(merged.get("criterion")) else None
    if criterion is not None:
        merged["criterion"] = getattr(criterion, "__name__", type(criterion).__name__)
    return Request(replace(given, model=model, data=data, metric=metric), merged, criterion)
