"""How gradient descent in JAX trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lottery.settings.fields import is_function
from lottery.settings.functions import called, check_given
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from lottery.trainers.optax.optimizers.named import COMMON, NamedOptimizer
from pruning.errors import BadValue, shown, unknown
from pruning.settings.ranges import check_ranges

PRECISIONS = ("float32", "bf16")
# The least and the most of each; what is more is a mistake.
_RANGES = {
    "steps": (1, 10**12),
    "epochs": (0, 10**9),
    "batch_size": (1, 10**9),
    "warmup": (0, 10**12),
    "eval_every": (1, 10**12),
    "std_examples": (1, 10**9),
    "lr": (0, 1e38),
    "clip_norm": (0, 1e38),
    "patience": (1, 10**9),
    "gamma": (0, 1e6),
    "weight_decay": (0, 1e38),
    "checkpoint_seconds": (0, 1e9),
}


@dataclass(frozen=True)
class OptaxConfig:
    """The configuration of the trainer `optax`.

    Attributes:
        steps: optimizer steps a level; 1,000 where neither `steps` nor `epochs` is given.
        epochs: passes over the training part a level, instead of `steps`.
        batch_size: examples a step (a `DataLoader` brings its own).
        optimizer: an optimizer of optax, by name (`sgd`, `adam`, `adamw`, `lion`, …); a function of the learning rate's
            schedule that returns one (`package.module:function` in a file): `lambda schedule: optax.lion(schedule)`;
            or a gradient transformation with a name for the records: `("mine", optax.chain(…))`.
        optimizer_params: settings of the optimizer's own (`b1`, `eps`, …); what is not given is optax's default.
        lr: the learning rate after warmup.
        momentum: of `sgd`, and of another optimizer that has one.
        nesterov: whether that momentum is Nesterov's.
        weight_decay: L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`; as optax says of another optimizer.
        clip_norm: largest gradient norm (over all surviving weights), or none.
        schedule: `constant`, `milestones` or `cosine`; a schedule of optax, by name (`warmup_cosine_decay_schedule`);
            or a function of the step that returns the learning rate.
        schedule_params: settings of optax's schedule, counted in steps.
        milestones: steps at which `milestones` multiplies the learning rate by `gamma`.
        gamma: that factor.
        warmup: steps over which the learning rate rises linearly from 0.
        eval_every: steps between evaluations; by default a twentieth of the training.
        patience: end a training after this many evaluations without a smaller validation loss (not before the step to
            which survivors are rewound); by default it never ends early. Networks then train one after the other.
        precision: `float32`, or `bf16` for the forward pass and its gradients; weights and steps stay as they are.
        std_examples: the most training examples that a criterion's standard deviation (`snr`) is taken from: the
            gradients of single examples at the trained weights.
        train_only: name patterns of the parameters that training changes, or the named sets `norm`, `biases` and
            `all-but-first` (PyTorch modules only); everything where none is given.
        checkpoint_seconds: least time between two checkpoints of an unfinished level.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    optimizer: str | Callable[..., Any] | tuple[object, ...] = "adam"
    optimizer_params: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 2e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: str | Callable[..., Any] = "constant"
    schedule_params: Mapping[str, Any] = field(default_factory=dict)
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    eval_every: int | None = None
    patience: int | None = None
    precision: str = "float32"
    std_examples: int = 1024
    train_only: tuple[str, ...] = ()
    checkpoint_seconds: float = 30.0
    device: str = "auto"

    def __post_init__(self) -> None:
        # In one spelling, so that a function of optax and its name are one setting.
        object.__setattr__(self, "optimizer", _optimizer(self.optimizer))
        object.__setattr__(self, "schedule", _schedule(self.schedule))
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.steps is not None and self.epochs is not None:
            raise BadValue("give steps or epochs, not both")
        for name in ("steps", "epochs", "batch_size", "lr", "clip_norm", "eval_every", "gamma", "std_examples"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadValue(f"{name} must be more than 0, not {value:g}")
        for name in ("momentum", "weight_decay", "warmup", "checkpoint_seconds"):
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
    """Raise `BadValue` for settings that the caller's own optimizer says itself."""
    if not is_function(config.optimizer):
        return
    own: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "optimizer_params": {}}
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
