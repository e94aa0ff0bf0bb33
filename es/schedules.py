"""Schedules of a strategy that begins in the middle of a training: after a rewind to generation k, or for fine-tuning.

The standard deviation, the learning rate and the temperature that a strategy is given decay by a factor a generation,
down to a least value. Such a decay has no memory: what goes on from generation k is the same decay from the value of
generation k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from es.strategies import Choice, get_strategy

SIGMA = "sigma"
TINY = 1e-37
"""Close to the smallest number of float32: no value decays to nothing, of which a strategy could not be made."""


@dataclass(frozen=True)
class Decay:
    """The names of a value that decays, of its factor a generation, and of its least value."""

    value: str
    factor: str
    least: str


DECAYS = (
    Decay(SIGMA, "sigma_decay", "sigma_min"),
    Decay("lr", "lr_decay", "lr_min"),
    Decay("temperature_init", "temperature_decay", "temperature_limit"),
)


def at_generation(
    strategy: Choice, sigma: float, hyperparameters: Mapping[str, float], generation: int, total: int
) -> tuple[float, dict[str, float]]:
    """Return `sigma` and the hyper-parameters of a strategy that begins at a generation.

    What a strategy adapts (the standard deviation of SNES, the moments of Adam) is no schedule, and starts afresh.

    Args:
        strategy: its name.
        sigma: the standard deviation at generation 0.
        hyperparameters: those that are set; values at generation 0.
        generation: at which it begins. From `total` on, everything stays as in the last generation of a training.
        total: generations of a whole training.

    Raises:
        UnknownName: no such strategy.

    >>> sigma, values = at_generation("open-es", 0.5, {"sigma_decay": 0.5}, generation=2, total=100)
    >>> sigma, values["sigma_decay"]
    (0.125, 0.5)
    >>> sigma, values = at_generation("open-es", 0.5, {"sigma_decay": 0.5}, generation=4, total=4)
    >>> sigma, values["sigma_decay"]
    (0.0625, 1.0)
    """
    if generation == 0:
        return sigma, dict(hyperparameters)
    known = get_strategy(strategy).hyperparameters
    values = {SIGMA: sigma, **known, **hyperparameters}
    set_here = dict(hyperparameters)
    for decay in DECAYS:
        if decay.factor not in known:
            continue
        first, factor, least = values[decay.value], values[decay.factor], values[decay.least]
        reached = max(first * factor ** min(generation, total - 1), min(first, least), TINY)
        ended = {decay.factor: 1.0} if generation >= total else {}
        set_here |= {decay.value: reached, **ended}
    return set_here.pop(SIGMA, sigma), set_here
