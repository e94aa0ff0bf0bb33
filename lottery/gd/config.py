"""How gradient descent trains."""

from __future__ import annotations

from dataclasses import dataclass

from lottery.gd.augment import AUGMENTATIONS
from lottery.gd.learning_rate import SCHEDULES
from lottery.gd.moves import MOVES, NONE
from lottery.gd.optimizers import OPTIMIZERS
from lottery.gd.std import ESTIMATORS, SECOND_MOMENT
from pruning.errors import BadValue, shown, unknown
from pruning.ranges import check_ranges

PRECISIONS = ("float32", "bf16")
# The least and the most of each; what is more is a mistake.
_RANGES = {
    "steps": (1, 10**12),
    "epochs": (0, 10**9),
    "batch_size": (1, 10**9),
    "warmup": (0, 10**12),
    "eval_every": (1, 10**12),
    "std_examples": (1, 10**9),
    "move_every": (2, 10**12),
    "lr": (0, 1e38),
    "clip_norm": (0, 1e38),
    "gamma": (0, 1e6),
    "weight_decay": (0, 1e38),
}


@dataclass(frozen=True)
class GDConfig:
    """The gradient-descent trainer's configuration.

    Attributes:
        steps: optimizer steps a level; 1,000 where neither `steps` nor `epochs` is given.
        epochs: passes over the training part a level, instead of `steps`; for a `DataLoader` one counts as many steps
            as its `len` says, whatever it then yields.
        batch_size: examples a step (a `DataLoader` brings its own).
        optimizer: `sgd`, `adam` or `adamw`.
        lr: the learning rate after warmup.
        momentum: of `sgd`.
        nesterov: whether the momentum of `sgd` is Nesterov's.
        weight_decay: L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`.
        clip_norm: largest gradient norm (over all surviving weights), or none.
        schedule: `constant`, `milestones` or `cosine`.
        milestones: steps at which `milestones` multiplies the learning rate by `gamma`.
        gamma: that factor.
        warmup: steps over which the learning rate rises linearly from 0.
        eval_every: steps between evaluations; by default a twentieth of the training.
        precision: `float32`, or `bf16` for autocast.
        augment: `none` or `flip-crop`.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        std: where a criterion needs it (`snr`), what a weight's standard deviation is taken from: `fisher` (gradients
            of single examples at the trained weights), `adam` (its second moment; optimizers `adam` and `adamw`) or
            `swag` (the spread of the iterates at the end of training, which takes a weight that hardly moved for a
            certain one, and prunes worse than `magnitude` for it).
        std_window: fraction of the steps, at the end, that `swag` looks at.
        std_examples: the most training examples that `fisher` looks at.
        train_only: name patterns of the parameters that training changes, or the named sets `norm`, `biases` and
            `all-but-first`; everything where none is given. A batch norm's running statistics follow the data anyway.
        moves: how a mask moves during training (`lottery list moves`): `set` or `rigl`; `none` for a mask that stays.
            A mask that moves keeps its count in every tensor; masks of one run are then not nested.
        move_every: steps between two moves.
        move_fraction: largest fraction of a tensor's survivors that one move exchanges.
        move_until: fraction of the training after which the mask stays.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 2e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    eval_every: int | None = None
    precision: str = "float32"
    augment: str = "none"
    device: str = "auto"
    std: str = "fisher"
    std_window: float = 0.5
    std_examples: int = 1024
    train_only: tuple[str, ...] = ()
    moves: str = NONE
    move_every: int = 100
    move_fraction: float = 0.3
    move_until: float = 0.75

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augment", AUGMENTATIONS),
            ("precision", PRECISIONS),
            ("std", ESTIMATORS),
            ("moves", (NONE, *MOVES.names())),
        ):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.steps is not None and self.epochs is not None:
            raise BadValue("give steps or epochs, not both")
        for name in ("steps", "epochs", "batch_size", "lr", "clip_norm", "eval_every", "gamma", "std_examples"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadValue(f"{name} must be more than 0, not {value:g}")
        for name in ("momentum", "weight_decay", "warmup"):
            if getattr(self, name) < 0:
                raise BadValue(f"{name} must be 0 or more, not {getattr(self, name):g}")
        if not self.momentum < 1:
            raise BadValue(f"momentum must be less than 1, not {self.momentum:g}")
        if any(milestone < 0 for milestone in self.milestones):
            raise BadValue(f"milestones are steps, 0 or more, not {shown(list(self.milestones))}")
        check_ranges(self, _RANGES)
        if self.nesterov and not self.momentum:
            raise BadValue("nesterov needs a momentum of more than 0")
        if self.schedule == "milestones" and not self.milestones:
            raise BadValue("schedule 'milestones' needs milestones: a list of steps")
        if not 0 < self.std_window <= 1:
            raise BadValue(
                f"std_window must be a fraction of the steps, more than 0 and at most 1, not {self.std_window:g}"
            )
        if self.train_only and self.std != "fisher":
            raise BadValue(f"std {self.std!r} says nothing of weights that train_only leaves alone; use 'fisher'")
        if self.move_every < 2:
            raise BadValue(f"move_every must be 2 or more, not {self.move_every}: a move takes a whole step")
        for name in ("move_fraction", "move_until"):
            if not 0 < getattr(self, name) <= 1:
                raise BadValue(f"{name} must be a fraction, more than 0 and at most 1, not {getattr(self, name):g}")
        if self.std == "adam" and self.optimizer not in SECOND_MOMENT:
            raise BadValue(f"std 'adam' reads a second moment, which optimizer {self.optimizer!r} lacks; use 'fisher'")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch))
        return self.steps or 1_000
