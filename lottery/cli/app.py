"""The `lottery` command: its sub-commands, its exit codes, and how it says what went wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from lottery.cli import ablate, bench, connect, export, instability, layers, list_, prune, show, train, transfer
from lottery.cli.terminal.output import Output, any_text, error_stream, join_output, open_descriptors, separate_output
from lottery.cli.terminal.warned import one_line_warnings
from pruning.calls.users_code import one_line
from pruning.disk.plain import plain
from pruning.errors import LotteryError, nearest

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
app.command("layers")(layers.layers)
app.command("list")(list_.list_)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find, train, run and study lottery tickets: sparse sub-networks that train as well as the dense one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the command was wrong, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_descriptors()
    with any_text(), one_line_warnings():
        # The process ends here: what it prints while it exits is no result either, so nothing is put back.
        code = _run(words, separate_output()) if _result_only(words) else run(words)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; every error is one line on standard error."""
    words = list(arguments)
    with any_text():
        if not _result_only(words):
            return _run(words, Output(sys.stdout, None, direct=False))
        output = separate_output()
        try:
            return _run(words, output)
        finally:
            join_output(output)


def _result_only(words: Sequence[str]) -> bool:
    """Say whether standard output is kept for a result: all other output then goes to standard error."""
    return bool({"--json", "--quiet"} & set(words)) and "--help" not in words


def _run(words: list[str], output: Output) -> int:
    command = typer.main.get_command(app)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with command.make_context("lottery", ["--debug", *words] if debug else list(words)) as context:
            output.write(command.invoke(context))
        return DONE
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return WRONG_COMMAND
        return _say(_usage(error, command, words), WRONG_COMMAND)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on from the last finished level", INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing more can be said on standard output.
        _forget(output)
        return FAILED
    except typer.Exit as stop:
        if "--help" in words:
            return stop.exit_code
        return _failed(stop, debug)
    except LotteryError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except BaseException as error:  # a caller's code may raise anything, an exit too: that is no success
        return _failed(error, debug)


def _failed(error: BaseException, debug: bool) -> int:
    """Say in one line what nobody foresaw; the traceback is for who asks."""
    if debug:
        traceback.print_exc()
    return _say(f"{one_line(error)} (--debug shows where)", FAILED)


def _forget(output: Output) -> None:
    """Let what is still buffered for a reader that went away go nowhere, so that the exit is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (output.stream, sys.stdout):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            if stream is not None and not output.direct:
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
    # Standard error may have lost its reader too; the exit code still says what there is to say.
    with contextlib.suppress(OSError, ValueError):
        print(f"lottery: {plain(' '.join(message.split()))}", file=error_stream(), flush=True)
    return code


if __name__ == "__main__":
    main()
