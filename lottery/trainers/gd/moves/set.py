"""Sparse evolutionary training."""

from __future__ import annotations

import numpy as np

from lottery.trainers.gd.moves import Moment, Proposal, move


@move("set", source="Mocanu et al. 2018, Algorithm 1 (arXiv 1707.04780)")
def set_(moment: Moment) -> Proposal:
    """The smallest weights leave; others come in at random.

    The fraction (the paper's ζ) is the same at every move.
    """
    size = {name: np.abs(weights) for name, weights in moment.weights.items()}
    chance = {name: moment.rng.random(keep.shape) for name, keep in moment.mask.items()}
    return Proposal(moment.fraction, size, chance)
