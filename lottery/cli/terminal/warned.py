"""How the command line warns: one line on standard error."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print what is warned of in the block as one line, without the place in our code that noticed."""

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        print(f"lottery: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
