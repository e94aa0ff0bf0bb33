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
    TrainerKind(
        OptaxConfig,
        _ready,
        length=frozenset({"steps", "epochs"}),
        no_result=frozenset({"device", "checkpoint_seconds"}),
        scoring=frozenset({"std_examples"}),
        frameworks=frozenset({"torch", "jax"}),
        # PyTorch looks where it has a device, and the devices that train are JAX's.
        torch_device=lambda config: "cpu" if config.device == "cpu" else "auto",
    ),
    "gradient descent in JAX (optax)",
    "DeepMind et al. 2020, The DeepMind JAX Ecosystem",
)
