"""Gradient descent in JAX, with the optimizers of optax; JAX is loaded when it is used."""

from __future__ import annotations

from lottery.trainers import TRAINERS, Ask, Listed, Setup, TrainerKind
from lottery.trainers.optax.config import OptaxConfig


def _ready(ask: Ask) -> Setup:
    """Make the trainer ready (see `lottery.trainers.optax.setup`)."""
    from lottery.trainers.optax.setup import setup

    return setup(ask)


def _optimizers() -> Listed:
    """Optimizers of optax, for trainer `optax`."""
    from lottery.trainers.listed import listed
    from lottery.trainers.optax.optimizers.optimizer import KNOWN

    return listed(KNOWN)


def _schedules() -> Listed:
    """Learning-rate schedules for trainer `optax`: ours, and optax's."""
    import optax

    from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
    from lottery.trainers.listed import listed
    from lottery.trainers.optax.optimizers.rates import KNOWN

    ours = [{"name": name, "summary": "a factor of lr, after warmup", "source": "lottery"} for name in SCHEDULES]
    return ours + listed({name: getattr(optax, name) for name in KNOWN})


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
        lists={"optax-optimizers": _optimizers, "optax-schedules": _schedules},
        torch_device=lambda config: "cpu" if config.device == "cpu" else "auto",
    ),
    "gradient descent in JAX (optax)",
    "DeepMind et al. 2020, The DeepMind JAX Ecosystem",
)
