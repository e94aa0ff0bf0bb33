"""How gradient descent trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lottery.settings.fields import is_function
from lottery.settings.functions import called
from lottery.trainers.gd.augment import AUGMENTATIONS
from lottery.trainers.gd.moves import MOVES, NONE
from lottery.trainers.gd.optimizers.given import optimizer_name
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from lottery.trainers.gd.optimizers.rates import schedule_name
from lottery.trainers.gd.std import ESTIMATORS, SECOND_MOMENT
from pruning.errors import BadValue, shown, unknown
from pruning.settings.later import LATER
from pruning.settings.ranges import check_ranges

PRECISIONS = ("float32", "bf16", "fp16")
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
    "accumulate": (1, 10**6),
    "patience": (1, 10**9),
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
        optimizer: `sgd`, `adam`, `adamw`; any other class of `torch.optim`, by name (`rmsprop`) or as it is; or a
            function of the parameters that returns an optimizer or a list of them (`package.module:function` in a
            file): `lambda params: RMSprop(params, lr=0.01)`. One whose first parameter is called `model` gets that.
        optimizer_params: settings of the optimizer's own (`betas`, `alpha`, …); what is not given is PyTorch's default.
        lr: the learning rate after warmup.
        momentum: of `sgd`.
        nesterov: whether the momentum of `sgd` is Nesterov's.
        weight_decay: L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`; as the class says of another one.
        accumulate: batches whose gradients are averaged for one optimizer step; `steps` count optimizer steps.
        clip_norm: largest gradient norm (over all surviving weights), or none.
        schedule: `constant`, `milestones` or `cosine`; a scheduler of PyTorch, by name (`OneCycleLR`) or as its class;
            or a function: `lambda optimizer, steps: OneCycleLR(optimizer, 0.1, steps)`. PyTorch's are stepped after
            every optimizer step (`ReduceLROnPlateau` after every evaluation, with the validation loss).
        schedule_params: settings of PyTorch's scheduler, counted in optimizer steps.
        milestones: steps at which `milestones` multiplies the learning rate by `gamma`.
        gamma: that factor.
        warmup: steps over which the learning rate rises linearly from 0.
        eval_every: steps between evaluations; by default a twentieth of the training.
        patience: end a training after this many evaluations without a smaller validation loss (not before the step to
            which survivors are rewound); by default it never ends early.
        precision: `float32`; `bf16` or `fp16` for autocast, `fp16` with scaled gradients.
        ema: decay of a running average of the weights (0.999), which is then what is measured, scored and delivered;
            rewinding goes back to the weights themselves. By default there is none.
        label_smoothing: of the default cross-entropy, in training and in the validation loss; the metric stays.
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
    optimizer: str | Callable[..., Any] = "adam"
    optimizer_params: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)
    lr: float = 2e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    accumulate: int = field(default=1, metadata=LATER)
    clip_norm: float | None = None
    schedule: str | Callable[..., Any] = "constant"
    schedule_params: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    eval_every: int | None = None
    patience: int | None = field(default=None, metadata=LATER)
    precision: str = "float32"
    ema: float | None = field(default=None, metadata=LATER)
    label_smoothing: float = field(default=0.0, metadata=LATER)
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
        # In one spelling, so that a class and its name are one setting.
        object.__setattr__(self, "optimizer", optimizer_name(self.optimizer))
        object.__setattr__(self, "schedule", schedule_name(self.schedule))
        for name, known in (
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
            optimizer = called("optimizer", self.optimizer)
            raise BadValue(f"std 'adam' reads a second moment, which {optimizer} lacks; use 'fisher'")
        _check_ways(self)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch / self.accumulate))
        return self.steps or 1_000


def _check_ways(config: GDConfig) -> None:
    """Raise `BadValue` where optimizer, schedule, precision or averaging contradict each other."""
    if is_function(config.optimizer) and not isinstance(config.optimizer, type):
        own = {"lr": GDConfig.lr, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "optimizer_params": {}}
        for name, default in own.items():
            if getattr(config, name) != default:
                raise BadValue(f"{name} is what the optimizer's function says itself: give it there, not here")
    if config.schedule in SCHEDULES and config.schedule_params:
        raise BadValue(f"schedule_params are of PyTorch's schedulers; schedule {config.schedule!r} has none")
    if config.schedule not in SCHEDULES and config.warmup:
        raise BadValue(
            f"warmup goes with the schedules {', '.join(SCHEDULES)}; {called('schedule', config.schedule)} brings its "
            "own, or a SequentialLR of a LinearLR and another"
        )
    if is_function(config.schedule) and not isinstance(config.schedule, type) and config.schedule_params:
        raise BadValue("schedule_params are what the schedule's function says itself: give them there")
    if config.ema is not None and not 0 < config.ema < 1:
        raise BadValue(f"ema is a decay, more than 0 and less than 1 (0.999), not {config.ema:g}")
    if not 0 <= config.label_smoothing < 1:
        raise BadValue(f"label_smoothing must be a fraction, 0 or more and less than 1, not {config.label_smoothing:g}")
