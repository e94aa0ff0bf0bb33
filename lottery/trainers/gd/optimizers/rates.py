"""Learning rates of one training: by our schedules, a scheduler of PyTorch, or the caller's own."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lottery.settings.fields import is_function, spoken
from lottery.settings.functions import check_given, function_of
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES, learning_rate
from pruning.calls.users_code import one_line, users_code
from pruning.errors import BadValue, unknown

CLASSES: dict[str, type[LRScheduler]] = {
    name: kind
    for name, kind in vars(lr_scheduler).items()
    if isinstance(kind, type) and issubclass(kind, LRScheduler) and not name.startswith("_") and kind is not LRScheduler
}


class Rates(Protocol):
    """Sets the learning rates of a training."""

    @property
    def follows_loss(self) -> bool:
        """Whether it reads the validation loss: then a learning rate depends on the training so far."""
        ...

    def before(self, step: int) -> None:
        """Step number `step`, counted from 0, comes next."""
        ...

    def after(self, step: int) -> None:
        """Step number `step`, counted from 1, is done."""
        ...

    def evaluated(self, loss: float | None) -> None:
        """The loss on the validation part was measured."""
        ...


def schedule_name(value: Any) -> Any:
    """Return a name for a name or class of PyTorch's schedulers, in its one spelling; a function as it is.

    Raises:
        UnknownName: a name that is none.
        BadValue: what a record says where the caller gave a function.

    >>> schedule_name("onecyclelr"), schedule_name(lr_scheduler.StepLR), schedule_name("cosine")
    ('OneCycleLR', 'StepLR', 'cosine')
    """
    check_given("schedule", value)
    if isinstance(value, type) and value in CLASSES.values():
        return value.__name__
    if is_function(value) or value in SCHEDULES:
        return value
    spelled = {name.lower(): name for name in CLASSES}
    if value.lower() not in spelled:
        raise unknown("schedule", str(value), (*SCHEDULES, *CLASSES))
    return spelled[value.lower()]


def rates_for(optimizers: Optimizers, config: Any, start: int, total: int) -> Rates:
    """Return the object that sets the learning rates.

    Args:
        optimizers: the optimizers of the training.
        config: the trainer's configuration.
        start: the step at which the schedule begins.
        total: steps of a whole training, the length of the schedule.

    Raises:
        BadValue: a scheduler that cannot be made, or that follows the validation loss and begins in the middle.

    >>> import torch
    >>> from lottery.trainers.gd.config import GDConfig
    >>> config = GDConfig(lr=0.5, schedule="StepLR", schedule_params={"step_size": 2, "gamma": 0.5})
    >>> one = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    >>> rates = rates_for(Optimizers([one], ours=False), config, start=3, total=8)
    >>> after_three = one.param_groups[0]["lr"]
    >>> rates.after(4)
    >>> after_three, one.param_groups[0]["lr"]
    (0.25, 0.125)
    """
    if config.schedule in SCHEDULES:
        return _formula(optimizers, config, total)
    rates = _Schedulers([_scheduler(optimizer, config, total) for optimizer in optimizers.each], total)
    if start and rates.follows_loss:
        raise BadValue(f"schedule {spoken(config.schedule)!r} {FOLLOWS}")
    with _unordered():
        for step in range(1, start + 1):
            rates.after(step)
    return rates


FOLLOWS = (
    "follows the validation loss, so that nobody knows its learning rate in the middle of a training: use rewind '0' "
    "or 'lr', or another schedule"
)


@dataclass(frozen=True)
class _Formula:
    """Our schedules: factors of every group's own rate, a pure function of the step."""

    groups: Sequence[tuple[dict[str, Any], Any]]
    config: Any
    total: int
    follows_loss: bool = False

    def before(self, step: int) -> None:
        for group, base in self.groups:
            group["lr"] = learning_rate(step, self.total, self.config, base)

    def after(self, step: int) -> None:
        pass

    def evaluated(self, loss: float | None) -> None:
        pass


@dataclass(frozen=True)
class _Schedulers:
    """Schedulers of PyTorch, stepped after every optimizer step up to the last; from then on the rate stays."""

    each: Sequence[Any]
    total: int

    @property
    def follows_loss(self) -> bool:
        return any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.each)

    def before(self, step: int) -> None:
        pass

    def after(self, step: int) -> None:
        if step < self.total:
            for scheduler in self.each:
                if not isinstance(scheduler, ReduceLROnPlateau):
                    with users_code(f"the schedule after step {step}"), _unordered(step == 1):
                        scheduler.step()

    def evaluated(self, loss: float | None) -> None:
        for scheduler in self.each:
            if isinstance(scheduler, ReduceLROnPlateau) and loss is not None:
                scheduler.step(loss)


def _formula(optimizers: Optimizers, config: Any, total: int) -> _Formula:
    if optimizers.given and config.schedule == "constant" and not config.warmup:
        return _Formula((), config, total)  # what the caller's function chose stays, or moves by itself
    groups = [group for optimizer in optimizers.each for group in optimizer.param_groups if "lr" in group]
    return _Formula([(group, group["lr"]) for group in groups], config, total)


def _scheduler(optimizer: Optimizer, config: Any, total: int) -> Any:
    if not is_function(config.schedule):
        return _of_class(CLASSES[config.schedule], optimizer, config, total)
    function = function_of("schedule", config.schedule)
    if isinstance(function, type) and issubclass(function, LRScheduler):
        return _of_class(function, optimizer, config, total)
    with users_code("the schedule's function", BadValue):
        made = function(optimizer, total)
    if not isinstance(made, LRScheduler):
        raise BadValue(
            f"schedule {spoken(function)!r} must return a scheduler of torch.optim.lr_scheduler, not "
            f"{type(made).__name__}; a factor for each step is lambda optimizer, steps: LambdaLR(optimizer, factor)"
        )
    return made


def _of_class(kind: type[LRScheduler], optimizer: Optimizer, config: Any, total: int) -> LRScheduler:
    accepted = inspect.signature(kind).parameters
    own = dict(config.schedule_params)
    for name in own:
        if name not in accepted:
            known = [key for key in accepted if key != "optimizer"]
            raise unknown(f"setting of schedule {kind.__name__!r}", name, known)
    peak = [group["lr"] for group in optimizer.param_groups]
    # What follows from the training need not be said.
    lengths = {"T_max": total, "total_steps": total} | {"max_lr": peak if len(peak) > 1 else peak[0]}
    known = {name: value for name, value in lengths.items() if name in accepted and "epochs" not in own}
    lacking = [
        name
        for name, parameter in accepted.items()
        # How long it takes PyTorch counts in epochs by default, and here it would be over after five steps.
        if (parameter.default is inspect.Parameter.empty or name == "total_iters")
        and name not in {"optimizer", *known, *own}
    ]
    if lacking:
        raise BadValue(
            f"schedule {kind.__name__!r} needs {' and '.join(lacking)}: give schedule_params (numbers, in optimizer "
            f"steps), or a function: schedule=lambda optimizer, steps: {kind.__name__}(optimizer, …)"
        )
    try:
        return kind(optimizer, **{**known, **own})
    except Exception as error:
        raise BadValue(
            f"schedule {kind.__name__!r} cannot be made: {one_line(error)}; a function can make any: "
            f"schedule=lambda optimizer, steps: {kind.__name__}(optimizer, …)"
        ) from error


@contextlib.contextmanager
def _unordered(first: bool = True) -> Iterator[None]:
    """Let a scheduler step before its optimizer did: after a rewind, or a first step that fp16 skipped."""
    if not first:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        yield
