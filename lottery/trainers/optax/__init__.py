"""Gradient descent in JAX, with the optimizers of optax; JAX is loaded when it is used."""

from __future__ import annotations

from lottery.trainers import TRAINERS, Ask, Setup, TrainerKind
from lottery.trainers.optax.config import OptaxConfig


def _ready(ask: Ask) -> Setup:
    """Make the trainer ready (see `lottery.trainers.optax.setup`)."""
    from lottery.trainers.optax.setup import setup

    return setup(ask)


TRAINERS.add(
    "optax",
    TrainerKind(OptaxConfig, _ready),
    "gradient descent in JAX (optax)",
    "DeepMind et al. 2020, The DeepMind JAX Ecosystem",
)
