"""`lottery prune`: find a winning ticket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lottery.cli.terminal.options import AsJson, Force, Resume, Runs
from lottery.cli.terminal.output import Result, error_stream, people
from lottery.cli.terminal.trusting import look_here

EXAMPLES = (
    "lottery prune --levels 9 --replicates 5",
    "lottery prune --model lenet-300-100 --data fashion-mnist --epochs 4 --rewind 500 --optimizer sgd --lr 0.1",
    "lottery prune --trainer es --strategy snes --criterion snr --data gymnax:CartPole-v1",
    "lottery prune --recipe frankle2019-lenet-quick --set layer_rates.fc3.weight=0.1",
)


def prune(
    settings: Mapping[str, Any],
    recipe: Annotated[str | None, typer.Option(help="Named settings (lottery list recipes).")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings. It beats the recipe.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting (lottery list settings). Repeatable."),
    ] = None,
    out: Runs = Path("runs"),
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars and no table; print the ticket's path only.")] = False,
) -> Result:
    """Find a winning ticket. Without arguments it is searched in the embedded digits data.

    The same command resumes a search that was cut off. Flags beat the config file, the file beats the recipe, the
    recipe beats the defaults.
    """
    from lottery.results.summary import as_json as search_json
    from lottery.results.table import conclusion
    from lottery.runs.given import Given
    from lottery.search.frame.resolving import default_data
    from lottery.search.levels.progress import Display
    from lottery.search.preparing.preparing import Request
    from lottery.search.running import run_search
    from lottery.settings.fields import parse_assignments, read_toml
    from lottery.state.machine.bars import bars_wanted
    from lottery.trainers.choosing import with_recipe

    file = read_toml(config) if config else {}
    given = {**settings, **parse_assignments(set_ or [])}
    look_here(given.get("model"), given.get("criterion"), given.get("trainer"))
    recipes = [given.pop("recipe", None), recipe, file.pop("recipe", None)]
    recipe = next((name for name in recipes if name is not None), None)
    merged = with_recipe(recipe, file, given)
    look_here(merged.get("model"), merged.get("criterion"))
    stream = people(as_json)
    display = Display(bars=bars_wanted(quiet), write=None if quiet else stream.show)
    named = Given(merged.get("model"), merged.get("data", default_data(merged)))
    request = Request(named, merged, out=out, force=force, resume=resume)
    search = run_search(request, display)
    if not quiet:
        print(conclusion(search), file=stream)
        print(f"Run: {search.run} ({search.seconds:.1f} s of training on {search.device})", file=stream)
        print(f"Figure: {search.run / 'density.png'}", file=stream)
    elif search.winning_replicate is None:
        print(f"lottery: no winning ticket: {search.reason}", file=error_stream())
    if as_json:
        return search_json(search)
    return search.winning_replicate.path if quiet and search.winning_replicate is not None else None
