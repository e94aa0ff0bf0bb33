"""Rewind points: where the survivors of a level go back to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pruning.errors import BadValue, shown
from pruning.jobs import Budget, Params


@dataclass(frozen=True)
class Rewind:
    """A rewind point.

    Attributes:
        to_step: the step of the dense training whose weights the survivors get, or None to keep the trained ones.
        start: the step at which the next training's schedules begin.
        stop: the step at which it ends.
    """

    to_step: int | None
    start: int
    stop: int

    def dense_budget(self, total_steps: int) -> Budget:
        """Return level 0's budget: a whole training that keeps a copy at the rewind point."""
        return Budget(0, total_steps, (self.to_step,) if self.to_step else ())

    def budget(self) -> Budget:
        """Return the budget of every later level."""
        return Budget(self.start, self.stop)

    def params(self, initial: Params, snapshots: Mapping[int, Params], trained: Params) -> Mapping[str, NDArray[Any]]:
        """Return the weights at the rewind point.

        Args:
            initial: the weights before any training.
            snapshots: the dense training's copies, by step.
            trained: the weights after the level just trained.
        """
        if self.to_step is None:
            return trained
        return snapshots[self.to_step] if self.to_step else initial


def parse_rewind(text: str, total_steps: int, steps_per_epoch: int) -> Rewind:
    """Read `0`, `500` (step), `2ep` (epoch), `lr` (learning-rate rewinding) or `none` (fine-tuning).

    After a rewind to step k, training goes on from step k: its learning rate and its position in an epoch are those of
    step k (Frankle et al. 2020, arXiv 1912.05671). The order of the data is another one at each level (`job_seed` in
    `lottery/search/levels/engine.py`), and the optimizer's state starts afresh. `lr` keeps the trained weights and
    repeats the whole schedule (Renda et al. 2020, arXiv 2003.02389); `none` keeps them and trains as long again at
    the last learning rate.

    Raises:
        BadValue: another text, or a step outside the training.

    >>> parse_rewind("2ep", 1000, 100)
    Rewind(to_step=200, start=200, stop=1000)
    """
    if text == "lr":
        return Rewind(None, 0, total_steps)
    if text == "none":
        return Rewind(None, total_steps, 2 * total_steps)
    match = re.fullmatch(r"([0-9]{1,15})(ep)?", text)
    if match is None:
        raise BadValue(f"rewind must be 0, a step (500), an epoch (2ep), lr or none, not {shown(text)}")
    step = int(match[1]) * (steps_per_epoch if match[2] else 1)
    if step >= total_steps:
        raise BadValue(f"rewind {text!r} is step {step:,}, and training ends at step {total_steps:,}")
    return Rewind(step, step, total_steps)
