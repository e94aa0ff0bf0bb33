"""Evolution strategies, by name; JAX is loaded when they are used."""

from __future__ import annotations

from es.config import ESConfig
from lottery.trainers import EPISODES, EXAMPLES, FITNESS, TRAINERS, Ask, Setup, TrainerKind


def _ready(ask: Ask) -> Setup:
    """Make the evolution trainer ready (see `lottery.trainers.es.setup.setup`)."""
    from lottery.trainers.es.setup import setup

    return setup(ask)


TRAINERS.add(
    "es",
    TrainerKind(
        ESConfig,
        _ready,
        length=frozenset({"generations"}),
        no_result=frozenset({"device", "checkpoint_seconds"}),
        frameworks=frozenset({"torch", "jax"}),
        data=frozenset({EXAMPLES, EPISODES, FITNESS}),
        # PyTorch looks where it has a device, and evolution's own devices are JAX's.
        torch_device=lambda config: "cpu" if config.device == "cpu" else "auto",
        training_mode=False,
    ),
    "evolution strategies in JAX (evosax)",
    "Lange & Sprekeler 2023 (arXiv 2306.00045)",
)
