"""`lottery layers`: what is prunable of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lottery.cli.terminal.options import AsJson
from lottery.cli.terminal.output import Result, people
from lottery.cli.terminal.trusting import Trust, look_here

EXAMPLES = (
    "lottery layers lenet-300-100 --data fashion-mnist",
    "lottery layers package.module:callable --skip 'head*'",
)


def layers(
    model: Annotated[
        str,
        typer.Argument(help="A name (lottery list models), package.module:callable, or a run or ticket directory."),
    ],
    data: Annotated[
        str | None, typer.Option(help="What goes through it, as for prune; by default digits, or the directory's own.")
    ] = None,
    of: Annotated[
        str | None, typer.Option("--model", help="Of a directory: its model, where it has no name for it.")
    ] = None,
    prunable: Annotated[
        list[str] | None, typer.Option(help="Exactly these tensors: a name pattern; repeatable.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Tensors that stay dense: a name pattern; repeatable.")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> Result:
    """Show the tensors of a network: which masks would cover, which not and why, and their shares.

    Shares are those of all parameters, and of the multiplications of a forward pass.
    """
    from lottery.studies.layers import layers as layers_of
    from lottery.studies.layers import stored_layers
    from pruning.errors import BadValue

    if Path(model).is_dir():
        if prunable or skip:
            raise BadValue("--prunable and --skip are for a model; a directory has its own")
        look_here(of, trust=trust)
        found = stored_layers(Path(model), of, data, trust=trust)
    else:
        if of is not None or trust:
            raise BadValue(f"--model and --trust are for a run or ticket directory, and {model} is none")
        look_here(model)
        found = layers_of(model, data or "digits", prunable=prunable or (), skip=skip or ())
    people(as_json).show(found.report())
    return found.as_json() if as_json else None
