"""Masks that move during training, by name: which weights leave, and which come in their place. One file each.

weights, gradients, mask ─▶ move ─▶ scores ─▶ select twice ─▶ a mask with the same counts
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.alive_rows import Rows, alive_rows, keeping_rows
from pruning.mask import Mask
from pruning.registry import Registry, summary_of
from pruning.selection import select

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Moment:
    """The state of a training when its mask moves.

    Attributes:
        weights: of the tensors whose mask moves, by name.
        gradients: dL/dw on the step's batch, of removed weights too.
        mask: the mask of these tensors.
        fraction: α, the largest fraction of a tensor's survivors that leaves.
        progress: how much of the time in which masks move is over, in (0, 1).
        rng: the random generator of this training and this step alone.
    """

    weights: Arrays
    gradients: Arrays
    mask: Mask
    fraction: float
    progress: float
    rng: np.random.Generator


@dataclass(frozen=True)
class Proposal:
    """The proposal of a move.

    Attributes:
        fraction: of every tensor's survivors that leaves, rounded down to whole weights.
        keep: scores of survivors; the lowest leave.
        grow: scores of removed weights; the highest come in.
    """

    fraction: float
    keep: Arrays
    grow: Arrays


Move = Callable[[Moment], Proposal]

MOVES: Registry[Move] = Registry("move", "lottery.trainers.gd.moves", listed="moves")


def move(name: str, *, source: str) -> Callable[[Move], Move]:
    """Register a way for masks to move; its docstring's first line is its summary."""

    def register(function: Move) -> Move:
        MOVES.add(name, function, summary_of(function), source)
        return function

    return register


def exchange(mask: Mask, proposal: Proposal, rows: Rows | None = None) -> Mask:
    """Return the mask after one move; every tensor keeps its count.

    A weight that comes in was removed before the move: none leaves and comes back at once. (Evci et al.'s own code
    lets a weight that was just dropped compete again.) Where fewer weights are removed than would leave, as many
    leave as can come in.

    Args:
        mask: before the move.
        proposal: the proposal of the move.
        rows: for tensors whose rows must not be emptied, the axes that number them: the best survivor of a row stays.

    Raises:
        BadValue: a score that is NaN.
        MaskMismatch: scores whose names or shapes are not the mask's.

    >>> mask = Mask({"w": [1, 1, 0, 0]})
    >>> scores = Proposal(0.5, {"w": np.array([3, 1, 0, 0])}, {"w": np.array([9, 9, 1, 2])})
    >>> exchange(mask, scores)["w"].tolist()
    [True, False, False, True]
    """
    counts, rows = mask.counts(), rows or {}
    leaving: dict[str, int] = {}
    for name, keep in mask.items():
        may = counts[name] - (alive_rows(keep, rows[name]) if name in rows else 0)
        leaving[name] = min(int(proposal.fraction * counts[name]), keep.size - counts[name], may)
    removed = Mask({name: ~keep for name, keep in mask.items()})
    staying = {name: counts[name] - leaving[name] for name in mask}
    kept = select(keeping_rows(proposal.keep, mask, rows), mask, staying, guard=0)
    return kept | select(proposal.grow, removed, leaving, guard=0)
