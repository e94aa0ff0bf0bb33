"""How gradient descent trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lottery.settings.fields import default_of, is_function
from lottery.settings.functions import called
from lottery.settings.sizes import size_in_bytes
from lottery.trainers import descent
from lottery.trainers.descent import HOW, LARGE, OPTIMIZER, SCHEDULE, STD
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from pruning.errors import BadValue
from pruning.settings.setting import setting, settings_of

# What `moves` says of a mask that stays as it is.
NO_MOVES = "none"
# Optimizers that keep a running mean of squared gradients, which `std` may read.
SECOND_MOMENT = ("adam", "adamw")

MOVING = "Masks that move during training"


def _moves() -> Sequence[str]:
    from lottery.trainers.gd.moves import MOVES

    return (NO_MOVES, *MOVES.names())


@dataclass(frozen=True)
class GDConfig:
    """The settings of gradient descent in PyTorch."""

    steps: int | None = setting(**descent.STEPS)
    epochs: float | None = setting(**descent.EPOCHS)
    batch_size: int = setting(**descent.BATCH_SIZE)
    optimizer: str | Callable[..., Any] = setting(
        "adam",
        "`sgd`, `adam`, `adamw`, or any other class of `torch.optim`, by name (`rmsprop`) or as it is. Or a function "
        "of the parameters that returns an optimizer or a list of them (`package.module:function` in a file): `lambda "
        "params: RMSprop(params, lr=0.01)`; one whose first parameter is called `model` gets the model.",
        listed="optimizers",
        group=OPTIMIZER,
        words=("optim", "opt"),
    )
    optimizer_params: Mapping[str, Any] = setting(
        {},
        "Settings of the optimizer's own (`betas`, `alpha`, …). What is not given is PyTorch's default.",
        of="optimizer",
        group=OPTIMIZER,
        later=True,
    )
    lr: float = setting(**descent.LR)
    momentum: float = setting(**descent.MOMENTUM)
    nesterov: bool = setting(**descent.NESTEROV)
    weight_decay: float = setting(
        0.0,
        "L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`. Other optimizers take it as their class says.",
        least=0,
        most=LARGE,
        unless_function="optimizer",
        group=OPTIMIZER,
        words=("wd", "l2", "decay"),
    )
    accumulate: int = setting(
        1,
        "Batches whose gradients are averaged for one optimizer step; `steps` count optimizer steps.",
        least=1,
        most=10**6,
        group=OPTIMIZER,
        words=("accumulation_steps", "gradient_accumulation_steps", "accumulate_grad_batches"),
        later=True,
    )
    clip_norm: float | None = setting(**descent.CLIP_NORM)
    schedule: str | Callable[..., Any] = setting(
        "constant",
        "`constant`, `milestones` or `cosine`; or a scheduler of PyTorch, by name (`OneCycleLR`) or as its class. Or a "
        "function: `lambda optimizer, steps: OneCycleLR(optimizer, 0.1, steps)`. PyTorch's are stepped after every "
        "optimizer step (`ReduceLROnPlateau` after every evaluation, with the validation loss).",
        listed="schedules",
        group=SCHEDULE,
        words=("scheduler", "lr_scheduler", "lr_schedule"),
    )
    schedule_params: Mapping[str, Any] = setting(
        {}, "Settings of PyTorch's scheduler, counted in optimizer steps.", of="schedule", group=SCHEDULE, later=True
    )
    lr_factors: Mapping[str, float] = setting(**descent.LR_FACTORS)
    lr_rule: str | None = setting(**descent.LR_RULE)
    lr_rule_params: Mapping[str, Any] = setting(**descent.LR_RULE_PARAMS)
    milestones: tuple[int, ...] = setting(**descent.MILESTONES)
    gamma: float = setting(**descent.GAMMA)
    warmup: int = setting(**descent.WARMUP)
    eval_every: int | None = setting(**descent.EVAL_EVERY)
    patience: int | None = setting(**descent.PATIENCE)
    precision: str = setting(
        "float32",
        "`float32`; `bf16` or `fp16` for autocast, `fp16` with scaled gradients. Products and convolutions, and the "
        "activations between them, then have 8 (`bf16`) or 11 significant bits, in training and in evaluations; "
        "weights, their updates and sums stay float32. A CPU gains where it multiplies bf16 itself.",
        choices=("float32", "bf16", "fp16"),
        group=HOW,
        words=("dtype", "amp", "mixed_precision"),
    )
    steps_by: str = setting(
        "auto",
        "What takes the steps. `auto`: of fully connected networks in float32 on the CPU, code that is compiled once "
        "for this machine, by its C compiler where there is one; of others, PyTorch's operations. Layers train their "
        "survivors alone, by such code, where measured costs say that this is faster. `pytorch`: PyTorch's operations "
        "everywhere. Both give the same up to rounding.",
        choices=("auto", "pytorch"),
        group=HOW,
        later=True,
    )
    ema: float | None = setting(
        None,
        "Decay of a running average of the weights (0.999), which is then measured, scored and delivered. Rewinding "
        "goes back to the weights themselves. By default there is none.",
        above=0,
        below=1,
        noun="a decay",
        group=HOW,
        words=("ema_decay",),
        later=True,
    )
    label_smoothing: float = setting(
        0.0,
        "Label smoothing of the default cross-entropy, in training and in the validation loss; the metric stays.",
        least=0,
        below=1,
        noun="a fraction",
        group=HOW,
        later=True,
    )
    augment: str = setting(
        "none",
        "Augmentation of image batches: `none`, or `flip-crop`.",
        choices=("none", "flip-crop"),
        group=HOW,
        words=("augmentation",),
    )
    device: str = setting(
        "auto", "Where to train: `auto`, `cpu`, `cuda` or `cuda:0`.", group=HOW, words=("accelerator",)
    )
    max_memory: str | None = setting(
        None,
        "How much memory networks that train in one stack may take: `8GB`, `512MB`, `1.5GiB`. A stack that would take "
        "more is split. By default 60 % of a CUDA device's memory, and no limit on a CPU.",
        group=HOW,
        words=("memory", "memory_limit"),
        later=True,
    )
    std: str = setting(
        "fisher",
        "What a weight's standard deviation is taken from, where a criterion needs it: `fisher` (gradients of single "
        "examples at the trained weights), `adam` (its second moment; optimizers `adam` and `adamw`) or `swag` (the "
        "spread of the weights at the end of training). `swag` takes a weight that hardly moved for a certain one, and "
        "prunes worse than `magnitude` for it.",
        choices=("fisher", "adam", "swag"),
        group=STD,
    )
    std_window: float = setting(
        0.5,
        "Fraction of the steps, at the end, that `swag` looks at.",
        above=0,
        most=1,
        noun="a fraction of the steps",
        group=STD,
    )
    std_examples: int = setting(**descent.STD_EXAMPLES)
    train_only: tuple[str, ...] = setting(
        (),
        "Train these parameters only: name patterns, or the named sets `norm`, `biases` and `all-but-first`. By "
        "default everything. A batch norm's running statistics follow the data anyway.",
        group=HOW,
        words=("trainable",),
    )
    moves: str = setting(
        NO_MOVES,
        "How a mask moves during training: `set` or `rigl`; `none` for a mask that stays. A mask that moves keeps its "
        "count in every tensor; masks of one run are then not nested.",
        choices=_moves,
        listed="moves",
        group=MOVING,
    )
    move_every: int = setting(100, "Steps between two moves.", least=1, most=10**12, group=MOVING)
    move_fraction: float = setting(
        0.3,
        "Largest fraction of a tensor's survivors that one move exchanges.",
        above=0,
        most=1,
        noun="a fraction",
        group=MOVING,
    )
    move_until: float = setting(
        0.75, "Fraction of the training after which the mask stays.", above=0, most=1, noun="a fraction", group=MOVING
    )

    def __post_init__(self) -> None:
        from lottery.trainers.gd.optimizers.given import optimizer_name
        from lottery.trainers.gd.optimizers.rates import schedule_name

        # In one spelling, so that a class and its name are one setting.
        object.__setattr__(self, "optimizer", optimizer_name(self.optimizer))
        object.__setattr__(self, "schedule", schedule_name(self.schedule))
        descent.check_together(self)
        if self.train_only and self.std != "fisher":
            raise BadValue(f"std {self.std!r} says nothing of weights that train_only leaves alone; use 'fisher'")
        if self.move_every < 2:
            raise BadValue(f"move_every must be 2 or more, not {self.move_every}: a move takes a whole step")
        if self.std == "adam" and self.optimizer not in SECOND_MOMENT:
            optimizer = called("optimizer", self.optimizer)
            raise BadValue(f"std 'adam' reads a second moment, which {optimizer} lacks; use 'fisher'")
        if self.max_memory is not None:
            size_in_bytes(self.max_memory)
        _check_ways(self)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch / self.accumulate))
        return self.steps or 1_000


def _check_ways(config: GDConfig) -> None:
    """Raise `BadValue` where optimizer and schedule contradict each other."""
    if is_function(config.optimizer) and not isinstance(config.optimizer, type):
        for field in fields(config):
            described = settings_of(GDConfig)[field.name]
            says = "optimizer" in (described.unless_function, described.of)
            if says and getattr(config, field.name) != default_of(field):
                raise BadValue(f"{field.name} is what the optimizer's function says itself: give it there, not here")
    if config.schedule in SCHEDULES and config.schedule_params:
        raise BadValue(f"schedule_params are of PyTorch's schedulers; schedule {config.schedule!r} has none")
    if config.schedule not in SCHEDULES and config.warmup:
        raise BadValue(
            f"warmup goes with the schedules {', '.join(SCHEDULES)}; {called('schedule', config.schedule)} brings its "
            "own, or a SequentialLR of a LinearLR and another"
        )
    if is_function(config.schedule) and not isinstance(config.schedule, type) and config.schedule_params:
        raise BadValue("schedule_params are what the schedule's function says itself: give them there")
