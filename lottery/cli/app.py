"""The `lottery` command: its sub-commands, its exit codes, and how it says what went wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from lottery.cli.commands import command_line
from lottery.cli.terminal.output import Output, any_text, error_stream, join_output, open_descriptors, separate_output
from lottery.cli.terminal.waiting import wait_briefly
from lottery.cli.terminal.warned import one_line_warnings
from pruning.calls.users_code import one_line
from pruning.disk.plain import plain
from pruning.errors import LotteryError, nearest

COMPLETION = "_LOTTERY_COMPLETE"
DONE, FAILED, WRONG_COMMAND, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the command was wrong, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETION in os.environ:  # the shell asks what may come next
        command_line(os.environ.get("COMP_WORDS", "").split())(prog_name="lottery")
    open_descriptors()
    wait_briefly(os.environ)
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
    return bool({"--json", "--quiet"} & set(words)) and not {"--help", "-h"} & set(words)


def _run(words: list[str], output: Output) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    command: Any = None
    try:
        command = typer.main.get_command(command_line(words))
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
        if {"--help", "-h", "--version"} & set(words):
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
    named = getattr(error, "option_name", None)
    if named is not None and words[0] == "train" and _prunes(named):
        return f"{named} prunes, and training a ticket again does not: leave it out"
    if named is not None and (called := _called_here(named)):
        return f"{message.partition(' (')[0]}: here it is called {called} (see: lottery {words[0]} --help)"
    return f"{message} (see: lottery {words[0] if words else ''} --help)"


def _prunes(option: str) -> bool:
    """Say whether an option is a setting of a search."""
    from lottery.cli.choices.described import search_settings

    return any(option.lstrip("-").replace("-", "_") == each.name for each in search_settings())


def _called_here(option: str) -> str | None:
    """Return the flag that a word leads to which other tools use for the same setting."""
    from lottery.cli.choices.described import search_settings, trainer_settings
    from lottery.cli.choices.flags import flag

    word = option.lstrip("-").replace("-", "_")
    settings = (*search_settings(), *trainer_settings())
    return next((flag(each.name) for each in settings if word in each.setting.words), None)


def _say(message: str, code: int) -> int:
    # Standard error may have lost its reader too; the exit code still says what there is to say.
    with contextlib.suppress(OSError, ValueError):
        print(f"lottery: {plain(' '.join(message.split()))}", file=error_stream(), flush=True)
    return code


if __name__ == "__main__":
    main()
