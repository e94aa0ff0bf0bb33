"""Evolution strategies, by name; JAX is loaded when they are used."""

from __future__ import annotations

from es.config import ESConfig
from lottery.trainers import TRAINERS, Ask, Setup, TrainerKind


def _ready(ask: Ask) -> Setup:
    """Make the evolution trainer ready (see `lottery.trainers.es.setup.setup`)."""
    from lottery.trainers.es.setup import setup

    return setup(ask)


TRAINERS.add(
    "es",
    TrainerKind(ESConfig, _ready),
    "evolution strategies in JAX (evosax)",
    "Lange & Sprekeler 2023 (arXiv 2306.00045)",
)
