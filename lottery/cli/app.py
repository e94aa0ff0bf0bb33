"""The `lottery` command: its sub-commands, its exit codes, and how it says what went wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from lottery.cli import ablate, bench, connect, export, instability, list_, prune, show, train, transfer
from lottery.cli.warned import one_line_warnings
from pruning.errors import LotteryError, nearest
from pruning.plain import plain

DONE, FAILED, WRONG_COMMAND, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="lottery",
    help="Find, train, run and study lottery tickets: sparse sub-networks that train as well as the dense one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("prune")(prune.prune)
app.command("show")(show.show)
app.command("train")(train.train)
app.command("transfer")(transfer.transfer)
app.command("ablate")(ablate.ablate)
app.command("connect")(connect.connect)
app.command("instability")(instability.instability)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("list")(list_.list_)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find, train, run and study lottery tickets: sparse sub-networks that train as well as the dense one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the command was wrong, 130 interrupted."""
    with one_line_warnings():
        sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; every error is one line on standard error."""
    command = typer.main.get_command(app)
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        result = command.main(["--debug", *words] if debug else words, prog_name="lottery", standalone_mode=False)
        code = result if isinstance(result, int) else DONE
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return WRONG_COMMAND
        return _say(_usage(error, command, words), WRONG_COMMAND)
    except LotteryError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing more can be said on standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last resort: one line for people, the traceback for who asks
        if debug:
            traceback.print_exc()
        return _say(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)
    if code == INTERRUPTED:
        return _say("interrupted; the same command goes on from the last finished level", INTERRUPTED)
    return code


def _usage(error: typer.TyperException, command: object, words: Sequence[str]) -> str:
    message = error.format_message().rstrip(".").replace("\n", " ")
    commands = getattr(command, "commands", {})
    unknown = words[0] if words and words[0] not in commands and not words[0].startswith("-") else None
    if unknown is not None:
        close = nearest(unknown, commands)
        return f"unknown command {unknown!r}" + (
            f": did you mean {close[0]!r}?" if close else f" (known: {', '.join(commands)})"
        )
    return f"{message} (see: lottery {words[0] if words else ''} --help)"


def _say(message: str, code: int) -> int:
    print(f"lottery: {plain(' '.join(message.split()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
