"""Gradient descent in PyTorch: the trainer that turns a mask and weights into trained weights."""

from __future__ import annotations

from lottery.trainers import TRAINERS, Ask, Listed, Setup, TrainerKind
from lottery.trainers.gd.config import NO_MOVES, GDConfig


def _ready(ask: Ask) -> Setup:
    """Make the trainer ready (see `lottery.trainers.gd.setup`)."""
    from lottery.trainers.gd.setup import setup

    return setup(ask)


def _smoothed(ask: Ask) -> Ask:
    """Return the request with the loss that `label_smoothing` stands for (see `lottery.trainers.gd.smoothing`)."""
    from lottery.trainers.gd.smoothing import smoothed

    return smoothed(ask)


def _optimizers() -> Listed:
    """Optimizers of PyTorch, for trainer `gd`."""
    from lottery.trainers.gd.optimizers.given import CLASSES
    from lottery.trainers.listed import listed

    return listed(CLASSES)


def _schedules() -> Listed:
    """Learning-rate schedules for trainer `gd`: ours, and PyTorch's schedulers."""
    from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
    from lottery.trainers.gd.optimizers.rates import CLASSES
    from lottery.trainers.listed import listed

    ours = [{"name": name, "summary": "a factor of lr, after warmup", "source": "lottery"} for name in SCHEDULES]
    return ours + listed(CLASSES)


def _moves(config: GDConfig) -> str:
    return "" if config.moves == NO_MOVES else config.moves


TRAINERS.add(
    "gd",
    TrainerKind(
        GDConfig,
        _ready,
        length=frozenset({"steps", "epochs"}),
        no_result=frozenset({"device", "max_memory"}),
        scoring=frozenset({"std", "std_window", "std_examples"}),
        ends_early=True,
        moves=_moves,
        prepared=_smoothed,
        torch_device=lambda config: config.device,
        lists={"optimizers": _optimizers, "schedules": _schedules},
    ),
    "gradient descent in PyTorch",
    "Frankle & Carbin 2019 (arXiv 1803.03635)",
)
