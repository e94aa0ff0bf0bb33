"""`lottery list`: what there is to choose from."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result

EXAMPLES = (
    "lottery list",
    "lottery list criteria",
    "lottery list settings --json",
)

# Narrower than this, a text beside names is no text any more.
_NARROWEST = 40


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="What to list: criteria, models, settings, …. Without it: the kinds.")
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """List what there is to choose from, each with a line and its source; without a kind, list the kinds.

    Names of your own are `package.module:name`; installed packages may add more.
    """
    from lottery.cli.choices.listing import kinds, listed
    from pruning.errors import unknown

    if kind is None:
        items = [{"name": name, "summary": summary, "source": f"lottery list {name}"} for name, summary in kinds()]
    elif kind not in dict(kinds()):
        raise unknown("list", kind, dict(kinds()))
    else:
        items = listed(kind)
    if as_json:
        return {"items": items}
    width = max(len(item["name"]) for item in items)
    # A program reads lines; people read columns.
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    columns = max(_NARROWEST, wide - width - 2)
    for item in items:
        source = [] if kind is None else [f"[{item['source']}]"]
        beside = [item["summary"], *_details(item), *source]
        lines = [line for text in beside for line in textwrap.wrap(text, columns, break_long_words=False)]
        for number, line in enumerate(lines):
            print(f"{item['name'] if number == 0 else '':<{width}}  {line}")
    return None


def _details(item: dict[str, str]) -> list[str]:
    """Return what a setting has beside its help: type, default, choices or range, other words."""
    if "type" not in item:
        return []
    parts = [item["type"], f"default {item['default']}" if item["default"] else "", item["allowed"]]
    return ["; ".join(part for part in parts if part)]
