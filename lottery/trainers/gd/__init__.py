"""Gradient descent in PyTorch: the trainer that turns a mask and weights into trained weights."""

from __future__ import annotations

from lottery.trainers import TRAINERS, Ask, Setup, TrainerKind
from lottery.trainers.gd.config import GDConfig


def _ready(ask: Ask) -> Setup:
    """Make the trainer ready (see `lottery.trainers.gd.setup`)."""
    from lottery.trainers.gd.setup import setup

    return setup(ask)


TRAINERS.add(
    "gd", TrainerKind(GDConfig, _ready), "gradient descent in PyTorch", "Frankle & Carbin 2019 (arXiv 1803.03635)"
)
