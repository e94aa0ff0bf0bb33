"""What goes where: results on standard output (with `--json` one object, nothing else), the rest on standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from pruning.errors import BadValue
from pruning.files import finite
from pruning.plain import PlainStream, plain_lines


def print_json(value: Any) -> None:
    """Print one JSON value on standard output; NaN becomes null."""
    print(json_text(value))


def json_text(value: Any) -> str:
    r"""Return JSON that a terminal shows and does not obey: control characters are escaped as JSON does.

    >>> json_text("naïve \x9b")
    '"na\\u00efve \\u009b"'
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=False)
    return text if plain_lines(text) == text else json.dumps(finite(value), indent=2).replace("\x7f", "\\u007f")


def people(json_wanted: bool) -> Any:
    """Return the stream for people's text: standard output, unless that is kept for JSON; nothing steers a terminal."""
    return PlainStream(sys.stderr if json_wanted else sys.stdout)


def numbers(option: str, text: str) -> list[int]:
    """Read whole numbers between commas; raises `BadValue` for anything else.

    >>> numbers("levels", "7,11")
    [7, 11]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadValue(f"--{option} takes whole numbers between commas (7,11), not {text!r}") from error
