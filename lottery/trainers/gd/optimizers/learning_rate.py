"""Learning rates: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol


class ScheduleSettings(Protocol):
    """The settings that a schedule reads."""

    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def schedule(self) -> Any: ...  # noqa: D102
    @property
    def milestones(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def warmup(self) -> int: ...  # noqa: D102


def _constant(step: int, total: int, settings: ScheduleSettings) -> float:
    return 1.0


def _milestones(step: int, total: int, settings: ScheduleSettings) -> float:
    return settings.gamma ** sum(step >= milestone for milestone in settings.milestones)


def _cosine(step: int, total: int, settings: ScheduleSettings) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / total))


SCHEDULES: dict[str, Callable[[int, int, ScheduleSettings], float]] = {
    "constant": _constant,
    "milestones": _milestones,
    "cosine": _cosine,
}


def learning_rate(step: int, total: int, settings: ScheduleSettings, base: float | None = None) -> float:
    """Return the learning rate of a step.

    Args:
        step: counted from 0. Steps from `total` on (fine-tuning) get the rate of the last step.
        total: steps of a whole training.
        settings: schedule, peak rate, warmup.
        base: another peak rate than that of the settings.

    >>> from lottery.trainers.gd.config import GDConfig
    >>> [learning_rate(s, 100, GDConfig(lr=1.0, warmup=4)) for s in (0, 1, 3, 50)]
    [0.25, 0.5, 1.0, 1.0]
    """
    step = min(step, total - 1)
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return (settings.lr if base is None else base) * warm * SCHEDULES[settings.schedule](step, total, settings)
