"""Masks drawn at random, which keep as many weights as another does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pruning.alive_rows import Rows, keeping_rows
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.patterns import Pattern
from pruning.selection import select


def drawn_at_random(
    scores: Mapping[str, NDArray[np.floating]], target: Target, rows: Rows, pattern: Pattern, guard: int = 0
) -> Mask:
    """Return the mask that keeps the highest of random scores, drawn by the caller from a stream of its own.

    Args:
        scores: uniform noise for each weight.
        target: how many weights stay, in all or in each tensor.
        rows: of tensors whose rows must not be emptied, the axes that number them.
        pattern: which weights stay or go together.
        guard: the fewest weights that every tensor keeps.

    >>> from pruning.patterns.unstructured import UNSTRUCTURED
    >>> drawn_at_random({"w": np.array([0.3, 0.9])}, 1, {}, UNSTRUCTURED)["w"].tolist()
    [False, True]
    """
    dense = Mask.dense({name: noise.shape for name, noise in scores.items()})
    return select(keeping_rows(scores, dense, rows), dense, target, guard, pattern)
