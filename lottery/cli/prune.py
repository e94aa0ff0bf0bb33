"""`lottery prune`: find a winning ticket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson, Device, Force, Resume, Runs
from lottery.cli.terminal.output import Result, error_stream, people
from lottery.cli.terminal.trusting import look_here


def prune(
    model: Annotated[
        str | None,
        typer.Option(help="A name (lottery list models) or package.module:callable."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A name (lottery list data), a folder of IDX files, an .npz, or gymnax:CartPole-v1."),
    ] = None,
    trainer: Annotated[str | None, typer.Option(help="gd: gradient descent; es: evolution; function: yours.")] = None,
    criterion: Annotated[
        str | None, typer.Option(help="A name (lottery list criteria) or package.module:function.")
    ] = None,
    score_at: Annotated[
        str | None, typer.Option(help="Which weights are scored: trained, or rewind (pruning at initialization).")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="A name (lottery list scopes): global, layer, erk, …")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="Weights that go together (lottery list patterns); sizes by --set pattern_params.n=2"),
    ] = None,
    levels: Annotated[int | None, typer.Option(help="How many times to prune (level 0 is dense).")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Prune until this sparsity, a fraction: 0.9.")] = None,
    prune_rate: Annotated[float | None, typer.Option(help="Fraction of the survivors a level removes.")] = None,
    rewind: Annotated[
        str | None, typer.Option(help="0, a step (500), an epoch (2ep), lr or none (fine-tuning).")
    ] = None,
    replicates: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps a level.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs a level, instead of steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam, adamw, … (lottery list optimizers).")] = None,
    strategy: Annotated[str | None, typer.Option(help="es: a name (lottery list strategies).")] = None,
    population: Annotated[int | None, typer.Option(help="es: members of a generation.")] = None,
    generations: Annotated[int | None, typer.Option(help="es: generations a level.")] = None,
    train_only: Annotated[
        list[str] | None,
        typer.Option(help="Train these parameters only: a name pattern, norm, biases or all-but-first; repeatable."),
    ] = None,
    data_diet: Annotated[
        float | None, typer.Option(help="Search on this fraction of the training examples, the hardest ones.")
    ] = None,
    device: Device = None,
    recipe: Annotated[str | None, typer.Option(help="Named settings (lottery list recipes).")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings; beats the recipe.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: 'densities=[0.5, 0.2]'; repeatable."),
    ] = None,
    out: Runs = Path("runs"),
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bars and no table; print the ticket's path only.")] = False,
) -> Result:
    """Find a winning ticket; without arguments, in the embedded digits data.

    The same command resumes a search that was cut off. Flags beat the config file, the file beats the recipe, the
    recipe beats the defaults.
    """
    flags = {
        "model": model,
        "data": data,
        "trainer": trainer,
        "criterion": criterion,
        "score_at": score_at,
        "scope": scope,
        "pattern": pattern,
        "levels": levels,
        "sparsity": sparsity,
        "prune_rate": prune_rate,
        "rewind": rewind,
        "replicates": replicates,
        "seed": seed,
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "strategy": strategy,
        "population": population,
        "generations": generations,
        "train_only": train_only,
        "data_diet": data_diet,
        "device": device,
    }
    from lottery.results.summary import as_json as search_json
    from lottery.results.table import conclusion
    from lottery.runs.given import Given
    from lottery.search.frame.resolving import default_data
    from lottery.search.levels.progress import Display
    from lottery.search.preparing.preparing import Request
    from lottery.search.running import run_search
    from lottery.settings.fields import layer, parse_assignments, read_toml
    from lottery.settings.recipes import recipe_settings
    from lottery.state.machine.bars import bars_wanted

    file = read_toml(config) if config else {}
    given = {key: value for key, value in flags.items() if value is not None} | parse_assignments(set_ or [])
    recipes = [given.pop("recipe", None), recipe, file.pop("recipe", None)]
    recipe = next((name for name in recipes if name is not None), None)
    settings = layer(recipe_settings(recipe) if recipe is not None else {}, file, given)
    look_here(settings.get("model"), settings.get("criterion"))
    stream = people(as_json)
    display = Display(bars=bars_wanted(quiet), write=None if quiet else stream.show)
    named = Given(settings.get("model"), settings.get("data", default_data(settings)))
    request = Request(named, settings, out=out, force=force, resume=resume)
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
