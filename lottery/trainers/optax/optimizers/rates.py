"""Learning rates as pure functions of the step: by our schedules, one of optax, or the caller's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from lottery.settings.fields import is_function
from lottery.settings.functions import function_of
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES, learning_rate
from pruning.calls.users_code import one_line, users_code
from pruning.errors import BadValue, unknown

# The schedules of optax that plain numbers describe.
KNOWN = (
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "linear_onecycle_schedule",
    "linear_schedule",
    "polynomial_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
)
# What a function does that needs to know the step's value, and so is called once for each.
_NEEDS_VALUES = (
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)


def known_name(name: str) -> str:
    """Return the name of a schedule of optax in its one spelling; raises `UnknownName` for another one.

    >>> known_name("cosine_decay"), known_name("exponential_decay")
    ('cosine_decay_schedule', 'exponential_decay')
    """
    for spelled in (name, f"{name}_schedule"):
        if spelled in KNOWN:
            return spelled
    raise unknown("schedule", name, (*SCHEDULES, *KNOWN))


@dataclass(frozen=True)
class Rates:
    """The learning rates of a training.

    Attributes:
        of_step: returns the learning rate of one step, counted from 0, or of an array of them.
        total: steps of a whole training; from then on the rate is that of the last one.
        at_once: whether `of_step` takes an array.
        what: how messages call the schedule.
    """

    of_step: Callable[[Any], Any]
    total: int
    at_once: bool
    what: str

    def between(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the learning rates of the steps from `start` to before `stop`, [steps] float64.

        Raises:
            RunError: the caller's function fails, or does not return one finite number for a step.
        """
        steps = np.minimum(np.arange(start, stop), self.total - 1)
        with users_code(f"{self.what} at steps {start:,} to {stop:,}"):
            if self.at_once:
                found = np.asarray(self.of_step(steps), np.float64)
            else:
                found = np.array([float(self.of_step(int(step))) for step in steps], np.float64)
            if not np.isfinite(found).all():
                raise ValueError(f"the learning rate of step {steps[np.argmin(np.isfinite(found))]} is not finite")
        return found


def rates_for(config: Any, total: int) -> Rates:
    """Return the learning rates that a configuration names.

    Args:
        config: the trainer's configuration.
        total: steps of a whole training.

    Raises:
        BadValue: a schedule that cannot be made, or a function that returns no finite number.

    >>> from lottery.trainers.optax.config import OptaxConfig
    >>> rates_for(OptaxConfig(lr=1.0, schedule="milestones", milestones=(2,)), 4).between(1, 6).tolist()
    [1.0, 0.1, 0.1, 0.1, 0.1]
    >>> rates_for(OptaxConfig(schedule=lambda step: 1.0 if step < 2 else 0.5), 4).between(1, 3).tolist()
    [1.0, 0.5]
    """
    if config.schedule in SCHEDULES:
        return Rates(lambda step: learning_rate(step, total, config), total, False, f"schedule {config.schedule!r}")
    if is_function(config.schedule):
        what, function = "the schedule's function", function_of("schedule", config.schedule)
    else:
        what, function = f"schedule {config.schedule!r}", _of_optax(config, total)
    with users_code(what, BadValue):
        at_once = _takes_arrays(function)
    rates = Rates(jax.jit(jax.vmap(function)) if at_once else function, total, at_once, what)
    with users_code(what, BadValue):
        first = np.asarray(function(0))
        if first.size != 1 or not np.isfinite(first).all():
            raise BadValue(f"{what} must return one finite number for a step, not {first.tolist()}")
    return rates


def _takes_arrays(function: Callable[[Any], Any]) -> bool:
    try:
        jax.eval_shape(jax.vmap(function), np.zeros(2, np.int32))
    except _NEEDS_VALUES:
        return False
    except (TypeError, ValueError):  # a function of plain numbers: `math.cos`, a constant
        return False
    return True


def _of_optax(config: Any, total: int) -> Callable[[Any], Any]:
    name = config.schedule
    make = getattr(optax, name)
    accepted, own = inspect.signature(make).parameters, dict(config.schedule_params)
    for key in own:
        if key not in accepted:
            raise unknown(f"setting of schedule {name!r}", key, accepted)
    # What follows from the training need not be said.
    peak = "peak_value" if "peak_value" in accepted else "init_value"
    known = {peak: config.lr} | {key: total for key in ("decay_steps", "transition_steps") if key in accepted}
    lacking = [k for k, p in accepted.items() if p.default is inspect.Parameter.empty and k not in {**known, **own}]
    if lacking:
        raise BadValue(f"schedule {name!r} needs {' and '.join(lacking)}: give schedule_params (numbers, in steps)")
    try:
        return make(**{**known, **own})
    except Exception as error:
        raise BadValue(f"schedule {name!r} cannot be made: {one_line(error)}") from error
