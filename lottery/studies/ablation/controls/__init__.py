"""Ablations: controls that break one thing about a ticket on purpose, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pruning.alive_rows import Rows
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.patterns import Pattern
from pruning.registry import Registry


@dataclass(frozen=True)
class Control:
    """What is trained instead of the ticket.

    Attributes:
        params: the weights that training starts from (not masked).
        mask: which of them take part.
        start: the step at which training's schedules begin, or None for the ticket's own.
    """

    params: Params
    mask: Mask
    start: int | None = None


@dataclass(frozen=True)
class Point:
    """Weights of the dense training at some step, from which a ticket may be trained."""

    params: Params
    start: int


@dataclass(frozen=True)
class Subject:
    """The ticket that a control is made of, and what it may be made with.

    Attributes:
        seed: the seed of the replicate.
        level: the level of the ticket.
        mask: its mask.
        params: its weights at the rewind point (not masked).
        fresh: makes another initialization of the same network, one for each repeat: as the search drew it, or by the
            initializer that was named, under this mask.
        redraw: draws a mask of the same density from the dense network, by its scores turned upside down.
        elsewhere: returns the dense network at the other rewind point that was asked for.
        pattern: which weights of the search stay or go together.
        rows: for tensors whose rows must not be emptied, the axes that number them.
        others: masks of the same level, by replicate seed, this one's not among them.
        rng: the random generator of this replicate, level, ablation and repeat alone.
    """

    seed: int
    level: int
    mask: Mask
    params: Params
    fresh: Callable[[], Params]
    redraw: Callable[[], Mask]
    elsewhere: Callable[[], Point]
    pattern: Pattern
    rows: Rows
    others: Mapping[int, Mask]
    rng: np.random.Generator


Ablate = Callable[[Subject], Control]

_HERE = "lottery.studies.ablation.controls"
ABLATIONS: Registry[Ablate] = Registry("ablation", _HERE, listed="ablations")
DRAWING: Registry[Ablate] = Registry("ablation that draws weights", _HERE)
"""Those that ask for fresh weights: an initializer may be named for them."""


def ablation(name: str, *, source: str, draws: bool = False) -> Callable[[Ablate], Ablate]:
    """Register an ablation; its docstring's first line is its summary and says what it breaks.

    Args:
        name: the name that users type.
        source: the paper (or page) that defines it.
        draws: whether it asks for fresh weights, by any initializer that the caller names.
    """

    def register(control: Ablate) -> Ablate:
        if draws:
            DRAWING.registering(name, source)(control)
        return ABLATIONS.registering(name, source)(control)

    return register


def others_in_order(subject: Subject) -> Sequence[int]:
    """Return the other replicates' seeds, those after this one first; raises `BadValue` where there are none."""
    if not subject.others:
        raise BadValue("masks are exchanged between replicates, and this run has one: search with more replicates")
    return sorted(subject.others, key=lambda seed: (seed < subject.seed, seed))
