"""Things by seed, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BySeed(dict[int, T], Generic[T]):
    """A table by seed that makes what it lacks.

    >>> BySeed(lambda seed: 2 * seed)[4]
    8
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, seed: int) -> T:
        self[seed] = self._make(seed)
        return self[seed]
