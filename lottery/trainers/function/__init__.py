"""Training by a loop of the caller's own; PyTorch is loaded when it is used."""

from __future__ import annotations

from lottery.trainers import EXAMPLES, NOTHING, TRAINERS, Ask, Setup, TrainerKind
from lottery.trainers.function.config import LoopConfig


def _ready(ask: Ask) -> Setup:
    """Make the trainer ready (see `lottery.trainers.function.setup`)."""
    from lottery.trainers.function.setup import setup

    return setup(ask)


TRAINERS.add(
    "function",
    TrainerKind(
        LoopConfig,
        _ready,
        length=frozenset({"steps", "epochs"}),
        no_result=frozenset({"device"}),
        data=frozenset({EXAMPLES, NOTHING}),
        started_by="train",
    ),
    "a loop of your own: train=function(model, mask, budget)",
    "this toolkit",
)
