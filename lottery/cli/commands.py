"""The `lottery` command line: its sub-commands, their help texts with examples, and its version."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lottery.cli import ablate, bench, connect, export, init, instability, layers, list_, prune, show, train, transfer

HELP = "Find, train, run and study lottery tickets: sparse sub-networks that train as well as the dense one."

_HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_COMMANDS: tuple[tuple[str, Callable[..., Any], Sequence[str]], ...] = (
    ("prune", prune.prune, prune.EXAMPLES),
    ("show", show.show, show.EXAMPLES),
    ("train", train.train, train.EXAMPLES),
    ("transfer", transfer.transfer, transfer.EXAMPLES),
    ("ablate", ablate.ablate, ablate.EXAMPLES),
    ("connect", connect.connect, connect.EXAMPLES),
    ("instability", instability.instability, instability.EXAMPLES),
    ("bench", bench.bench, bench.EXAMPLES),
    ("export", export.export, export.EXAMPLES),
    ("layers", layers.layers, layers.EXAMPLES),
    ("init", init.init, init.EXAMPLES),
    ("list", list_.list_, list_.EXAMPLES),
)


class CommandWithExamples(TyperCommand):
    """A command whose help shows its options under headings, and examples as they are typed."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options of each heading in the order in which headings come."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "rich_help_panel", None) or "Options"
                arguments = parameter.param_type_name == "argument"
                sections.setdefault("Arguments" if arguments else heading, []).append(record)
        sections["Options"] = sections.pop("Options", [])  # those of every command come last
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one a line."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def command_line(words: Sequence[str]) -> typer.Typer:
    """Return the command line.

    The flags of settings are made where one of these words asks for a command that has them: they are many, and to list
    the commands should stay fast.

    >>> [command.name for command in command_line([]).registered_commands][:3]
    ['prune', 'show', 'train']
    """
    app = typer.Typer(
        name="lottery",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_HELP_FLAGS,
    )
    app.callback()(_options)
    for name, function, examples in _COMMANDS:
        command = _with_settings(name, function, _trainer_by_path(words)) if name in words else _nothing
        app.command(
            name,
            cls=CommandWithExamples,
            short_help=(inspect.getdoc(function) or "").partition("\n")[0],
            epilog="\n".join(examples),
            context_settings=_HELP_FLAGS,
        )(command)
    return app


def _trainer_by_path(words: Sequence[str]) -> str | None:
    """Return the trainer that the words name as `package.module:NAME`: it has flags too."""
    chosen = [following for word, following in itertools.pairwise(words) if word == "--trainer"]
    chosen += [word.partition("=")[2] for word in words if word.startswith("--trainer=")]
    return next((name for name in chosen if ":" in name), None)


def _with_settings(name: str, function: Callable[..., Any], outside: str | None) -> Callable[..., Any]:
    if "settings" not in inspect.signature(function).parameters:
        return function
    from lottery.cli.choices.described import search_settings, settings_of_trainer, trainer_settings
    from lottery.cli.choices.flags import with_flags
    from lottery.cli.terminal.trusting import look_here
    from lottery.settings.config import LEVELS, SEARCH
    from lottery.settings.start import START

    trained = trainer_settings()
    if outside is not None:
        look_here(outside)
        trained = [*settings_of_trainer(outside), *trained]
    if name != "train":
        # What most people set comes first.
        first = [each for group in (SEARCH, LEVELS, START) for each in search_settings() if each.setting.group == group]
        rest = [each for each in search_settings() if each not in first]
        return with_flags(function, [*first, *trained, *rest])
    # Nothing is pruned there, and what is not given is the ticket's own.
    settings = [*(each for each in search_settings() if each.setting.group == SEARCH), *trained]
    return with_flags(function, [dataclasses.replace(each, default=None) for each in settings])


def _nothing() -> None:
    """Stand for a command that is not asked for."""


def _version(wanted: bool) -> None:
    if wanted:
        import lottery

        print(f"lottery {lottery.__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find, train, run and study lottery tickets: sparse sub-networks that train as well as the dense one."""
