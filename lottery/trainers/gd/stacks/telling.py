"""Lines that are said once in a search, however often there is reason to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lottery.state.machine.telling import say


@dataclass
class Once:
    """Says a line on standard error, unless it said it before.

    >>> heard = []
    >>> tell = Once(heard.append)
    >>> tell("slow"), tell("slow"), heard
    (None, None, ['slow'])
    """

    say: Callable[[str], None] = say
    before: set[str] = field(default_factory=set)

    def __call__(self, text: str) -> None:
        """Say a line once."""
        if text not in self.before:
            self.before.add(text)
            self.say(text)
