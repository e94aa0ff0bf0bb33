"""How gradient descent in JAX trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lottery.settings.fields import is_function
from lottery.settings.functions import called, check_given
from lottery.trainers import descent
from lottery.trainers.descent import HOW, LARGE, OPTIMIZER, SCHEDULE
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from lottery.trainers.optax.optimizers.named import COMMON, NamedOptimizer
from pruning.errors import BadValue
from pruning.settings.setting import setting


@dataclass(frozen=True)
class OptaxConfig:
    """The settings of gradient descent in JAX."""

    steps: int | None = setting(**descent.STEPS)
    epochs: float | None = setting(**descent.EPOCHS)
    batch_size: int = setting(**descent.BATCH_SIZE)
    optimizer: str | Callable[..., Any] | tuple[object, ...] = setting(
        "adam",
        "An optimizer of optax, by name (`sgd`, `adam`, `adamw`, `lion`, …). Or a function of the learning rate's "
        "schedule that returns one (`package.module:function` in a file): `lambda schedule: optax.lion(schedule)`. Or "
        'a gradient transformation with a name for the records: `("mine", optax.chain(…))`.',
        listed="optax-optimizers",
        group=OPTIMIZER,
        words=("optim", "opt"),
    )
    optimizer_params: Mapping[str, Any] = setting(
        {},
        "Settings of the optimizer's own (`b1`, `eps`, …). What is not given is optax's default.",
        of="optimizer",
        group=OPTIMIZER,
    )
    # An optimizer's function is given the schedule, so that the learning rate stays a setting.
    lr: float = setting(**{**descent.LR, "unless_function": ""})
    momentum: float = setting(**descent.MOMENTUM)
    nesterov: bool = setting(**descent.NESTEROV)
    weight_decay: float = setting(
        0.0,
        "L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`. Other optimizers take it as optax says.",
        least=0,
        most=LARGE,
        unless_function="optimizer",
        group=OPTIMIZER,
        words=("wd", "l2", "decay"),
    )
    clip_norm: float | None = setting(**descent.CLIP_NORM)
    schedule: str | Callable[..., Any] = setting(
        "constant",
        "`constant`, `milestones` or `cosine`; or a schedule of optax, by name (`warmup_cosine_decay_schedule`). Or a "
        "function of the step that returns the learning rate.",
        listed="optax-schedules",
        group=SCHEDULE,
        words=("scheduler", "lr_scheduler", "lr_schedule"),
    )
    schedule_params: Mapping[str, Any] = setting(
        {}, "Settings of optax's schedule, counted in steps.", of="schedule", group=SCHEDULE
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
        "`float32`, or `bf16` for the forward pass and its gradients; weights and steps stay as they are.",
        choices=("float32", "bf16"),
        group=HOW,
        words=("dtype",),
    )
    std_examples: int = setting(**descent.STD_EXAMPLES)
    train_only: tuple[str, ...] = setting(
        (),
        "Train these parameters only: name patterns, or the named sets `norm`, `biases` and `all-but-first` (PyTorch "
        "modules only). By default everything.",
        group=HOW,
        words=("trainable",),
    )
    checkpoint_seconds: float = setting(
        30.0, "Least time between two checkpoints of an unfinished level.", least=0, most=1e9, group=HOW
    )
    device: str = setting(
        "auto", "Where to train: `auto`, `cpu`, `cuda` or `cuda:0`.", group=HOW, words=("accelerator",)
    )

    def __post_init__(self) -> None:
        # In one spelling, so that a function of optax and its name are one setting.
        object.__setattr__(self, "optimizer", _optimizer(self.optimizer))
        object.__setattr__(self, "schedule", _schedule(self.schedule))
        descent.check_together(self)
        _check_optimizer(self)
        _check_schedule(self)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch))
        return self.steps or 1_000


def _optimizer(value: Any) -> Any:
    """Return a name, a function, or a named object."""
    check_given("optimizer", value)
    if value in COMMON:
        return value
    if isinstance(value, str) and not is_function(value):
        from lottery.trainers.optax.optimizers.optimizer import known_name

        return known_name(value)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0]:
        if not all(callable(getattr(value[1], part, None)) for part in ("init", "update")):
            raise BadValue(
                f"optimizer {value[0]!r}: expected a gradient transformation of optax, with init and update, not "
                f"{type(value[1]).__name__}"
            )
        return NamedOptimizer(value[0], value[1])
    if isinstance(value, tuple) or all(hasattr(value, part) for part in ("init", "update")):
        raise BadValue(
            "optimizer: the records of a run need a name for this object: give ('a-name', object), or a function of "
            "the learning rate's schedule that makes it (package.module:function)"
        )
    from lottery.trainers.optax.optimizers.optimizer import name_of

    return name_of(value)


def _schedule(value: Any) -> Any:
    """Return a name or a function."""
    check_given("schedule", value)
    if value in SCHEDULES or is_function(value):
        return value
    from lottery.trainers.optax.optimizers.rates import known_name

    return known_name(value)


def _check_optimizer(config: OptaxConfig) -> None:
    """Raise `BadValue` for settings that the caller's own optimizer says itself, or that an optimizer does not take."""
    whole = [
        name for name in ("schedule_free", "lbfgs") if isinstance(config.optimizer, str) and name in config.optimizer
    ]
    if whole and (config.lr_factors or config.lr_rule):
        raise BadValue(
            f"optimizer {config.optimizer!r} moves all weights together: it takes no lr_factors and no lr_rule; "
            "use sgd, adam or adamw"
        )
    if not is_function(config.optimizer):
        return
    own: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "optimizer_params": {}}
    own |= {"lr_factors": {}, "lr_rule": None}
    if isinstance(config.optimizer, NamedOptimizer):
        own |= {"lr": OptaxConfig.lr, "schedule": "constant", "warmup": 0}
    for name, default in own.items():
        if getattr(config, name) != default:
            raise BadValue(f"{name} is what {called('optimizer', config.optimizer)} says itself: give it there")


def _check_schedule(config: OptaxConfig) -> None:
    """Raise `BadValue` where the settings of a schedule contradict each other."""
    if config.schedule in SCHEDULES and config.schedule_params:
        raise BadValue(f"schedule_params are of optax's schedules; schedule {config.schedule!r} has none")
    if config.schedule not in SCHEDULES and config.warmup:
        raise BadValue(
            f"warmup goes with the schedules {', '.join(SCHEDULES)}; {called('schedule', config.schedule)} brings its "
            "own, or 'warmup_cosine_decay_schedule'"
        )
    if is_function(config.schedule):
        for name, default in (("schedule_params", {}), ("lr", OptaxConfig.lr)):
            if getattr(config, name) != default:
                raise BadValue(f"{name} is what the schedule's function says itself: give it there")
