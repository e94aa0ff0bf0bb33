"""How far timings scatter, and whether two of them can be told apart on this machine now."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Several timings of the same, in seconds.

    Attributes:
        least: the shortest.
        lower: a quarter took less.
        median: half took less.
        upper: three quarters took less.
        most: the longest.
        runs: how many there were.
    """

    least: float
    lower: float
    median: float
    upper: float
    most: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of one timing or more.

        >>> Spread.of([3.0, 1.0, 2.0, 5.0, 4.0])
        Spread(least=1.0, lower=2.0, median=3.0, upper=4.0, most=5.0, runs=5)
        """
        if len(seconds) == 1:
            return cls(*[seconds[0]] * 5, runs=1)
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(min(seconds), lower, median, upper, max(seconds), len(seconds))

    def below(self, other: Spread) -> bool:
        """Say whether this was certainly faster: the middle halves of the two do not overlap.

        >>> fast, slow = Spread.of([1.0, 1.1, 9.0]), Spread.of([2.0, 2.1, 2.2])
        >>> fast.below(slow), Spread.of([1.0, 1.1, 1.2]).below(slow)
        (False, True)
        """
        return self.upper < other.lower

    def text(self) -> str:
        """Return the middle half in milliseconds.

        >>> Spread.of([0.001, 0.002, 0.003]).text()
        '1.500 to 2.500 ms'
        """
        return f"{self.lower * 1e3:.3f} to {self.upper * 1e3:.3f} ms"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON, in seconds."""
        return asdict(self)


def told_apart(dense: Spread, other: Spread) -> str:
    """Return whether `other` is `faster` or `slower` than `dense`, or `cannot tell`.

    >>> told_apart(Spread.of([2.0, 2.1, 2.2]), Spread.of([1.0, 2.1, 9.0]))
    'cannot tell'
    """
    if other.below(dense):
        return "faster"
    return "slower" if dense.below(other) else "cannot tell"
