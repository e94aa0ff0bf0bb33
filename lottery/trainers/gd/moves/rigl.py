"""Rigging the lottery."""

from __future__ import annotations

import math

import numpy as np

from lottery.trainers.gd.moves import Moment, Proposal, move


@move("rigl", source="Evci et al. 2020, section 3 and Algorithm 1 (arXiv 1911.11134)")
def rigl(moment: Moment) -> Proposal:
    """The smallest weights leave; those with the largest gradients come in.

    The fraction falls as α/2 · (1 + cos(π t / T_end)).
    """
    fraction = moment.fraction / 2 * (1 + math.cos(math.pi * moment.progress))
    size = {name: np.abs(weights) for name, weights in moment.weights.items()}
    pull = {name: np.abs(gradient) for name, gradient in moment.gradients.items()}
    return Proposal(fraction, size, pull)
