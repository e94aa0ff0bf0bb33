"""Sparse evolutionary training."""

from __future__ import annotations

import numpy as np

from lottery.trainers.gd.moves import Moment, Proposal, move


@move("set", source="Mocanu et al. 2018, Algorithm 1 (arXiv 1707.04780)")
def set_(moment: Moment) -> Proposal:
    """The smallest weights leave; others come in at random.

    The fraction (the paper's ζ) is the same at every move.

    >>> from pruning.mask import Mask
    >>> weights, mask = {"w": np.array([-2.0, 1.0, 0.0])}, Mask({"w": [1, 1, 0]})
    >>> wanted = set_(Moment(weights, {}, mask, 0.3, 0.5, np.random.default_rng(0)))
    >>> wanted.fraction, wanted.keep["w"].tolist(), wanted.grow["w"].shape
    (0.3, [2.0, 1.0, 0.0], (3,))
    """
    size = {name: np.abs(weights) for name, weights in moment.weights.items()}
    chance = {name: moment.rng.random(keep.shape) for name, keep in moment.mask.items()}
    return Proposal(moment.fraction, size, chance)
